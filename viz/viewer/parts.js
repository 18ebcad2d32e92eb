// @ts-check
// Parts: pinned nodes and supernodes, and what flows between them (graphs/collapse.py).
"use strict";

/**
 * @typedef {{name: string, rows: number[], isGroup: boolean}} Part
 * @typedef {{source: number, target: number, flow: number, net: number}} Flow Numbers of parts;
 *   flow: share of all influence that goes along; net: the same, where opposite signs cancel.
 */

/**
 * Groups, and pinned nodes that are in none.
 * @param {Graph} graph
 * @param {Notes} notes
 * @returns {Part[]}
 */
function partsOf(graph, notes) {
  const taken = new Set();
  /** @type {Part[]} */
  const parts = [];
  for (const group of notes.groups) {
    const rows = group.members.map((name) => graph.place.get(name)).filter((row) => row !== undefined);
    for (const row of rows) taken.add(row);
    if (rows.length) parts.push({ name: group.name, rows, isGroup: true });
  }
  for (const name of notes.pins) {
    const row = graph.place.get(name);
    if (row !== undefined && !taken.has(row)) parts.push({ name, rows: [row], isGroup: false });
  }
  return parts;
}

/**
 * @param {Graph} graph
 * @param {Part[]} parts
 * @returns {Flow[]} Strongest first.
 */
function flowsBetween(graph, parts) {
  const part = new Int32Array(graph.count).fill(-1);
  parts.forEach(({ rows }, number) => rows.forEach((row) => (part[row] = number)));
  /** @type {Map<number, Flow>} */
  const found = new Map();
  for (let e = 0; e < graph.links; e++) {
    const [source, target] = [part[graph.source[e]], part[graph.target[e]]];
    if (source < 0 || target < 0 || source === target) continue;
    const key = target * parts.length + source;
    const flow = found.get(key) ?? { source, target, flow: 0, net: 0 };
    const along = graph.arrived[graph.target[e]] * graph.share[e];
    if (!along) continue;
    flow.flow += Math.abs(along);
    flow.net += along;
    found.set(key, flow);
  }
  return [...found.values()].sort((a, b) => b.flow - a.flow);
}

/**
 * What arrives at each part from outside of it, as a share of all influence.
 * @param {Graph} graph
 * @param {Part[]} parts
 */
function arrivedAt(graph, parts) {
  return parts.map(({ rows }) => {
    const inside = new Set(rows);
    return rows.reduce((sum, row) => {
      let within = 0;
      for (const e of edgesAt(graph.outputs, row)) {
        if (inside.has(graph.target[e])) within += graph.arrived[graph.target[e]] * Math.abs(graph.share[e]);
      }
      return sum + graph.arrived[row] - within;
    }, 0);
  });
}

/**
 * Places of parts: later layers higher, later tokens further right, none upon another.
 * @param {Graph} graph
 * @param {Part[]} parts
 * @param {number} width Of a part, as of the place it takes.
 * @param {number} height
 * @returns {{x: number, y: number}[]} Middles; y runs downwards.
 */
function placesOf(graph, parts, width, height) {
  const mean = (/** @type {number[]} */ values) => values.reduce((a, b) => a + b, 0) / values.length;
  const depth = parts.map(({ rows }) => mean(rows.map((row) => depthOf(graph, row))));
  const along = parts.map(({ rows }) => mean(rows.map((row) => graph.pos[row])));
  const steps = [...new Set(depth.map(Math.round))].sort((a, b) => b - a);
  const places = parts.map(() => ({ x: 0, y: 0 }));
  steps.forEach((step, line) => {
    const members = parts.map((_, part) => part).filter((part) => Math.round(depth[part]) === step);
    members.sort((a, b) => along[a] - along[b] || a - b);
    let end = -Infinity;
    for (const part of members) {
      const x = Math.max(along[part] * width * 0.6 + width / 2, end + width);
      places[part] = { x, y: line * height + height / 2 };
      end = x;
    }
  });
  const left = Math.min(...places.map(({ x }) => x - width / 2));
  return places.map(({ x, y }) => ({ x: x - left, y }));
}

/** Layer of a node, inputs below and targets above all. @param {Graph} graph @param {number} row */
function depthOf(graph, row) {
  if (isInput(graph, row)) return -1;
  return isTarget(graph, row) ? graph.nLayers + 1 : graph.layer[row];
}
