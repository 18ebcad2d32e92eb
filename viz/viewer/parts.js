// @ts-check
// Parts: pinned nodes and supernodes, and flows between them (graphs/groups/collapse.py).
"use strict";

/**
 * @typedef {{name: string, rows: number[], isGroup: boolean}} Part
 * @typedef {{source: number, target: number, flow: number, net: number}} Flow Numbers of parts;
 *   flow: share of all influence along it; net: the same with signs, which may cancel.
 */

/**
 * Groups, and pinned nodes outside of groups.
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
 * Influence that arrives at each part from outside, as a share of all.
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
