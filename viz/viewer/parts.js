// @ts-check
// Parts: pinned nodes and supernodes, and flows between them (graphs/groups/collapse.py).
"use strict";

/**
 * @typedef {{name: string, rows: number[], isGroup: boolean, of: string | null}} Part of: the
 *   unfolded group whose member it is.
 * @typedef {{source: number, target: number, flow: number, net: number}} Flow Numbers of parts;
 *   flow: share of all influence along it; net: the same with signs, which may cancel.
 */

/**
 * Groups, members of unfolded groups, and pinned nodes outside of groups.
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {string[]} unfolded Names of groups.
 * @returns {Part[]}
 */
function partsOf(graph, notes, unfolded) {
  const taken = new Set();
  /** @type {Part[]} */
  const parts = [];
  for (const group of notes.groups) {
    const rows = group.members.map((name) => graph.place.get(name)).filter((row) => row !== undefined);
    for (const row of rows) taken.add(row);
    if (unfolded.includes(group.name)) parts.push(...rows.map((row) => ({ name: graph.names[row], rows: [row], isGroup: false, of: group.name })));
    else if (rows.length) parts.push({ name: group.name, rows, isGroup: true, of: null });
  }
  for (const name of notes.pins) {
    const row = graph.place.get(name);
    if (row !== undefined && !taken.has(row)) parts.push({ name, rows: [row], isGroup: false, of: null });
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
 * @typedef {{group: string | null, rows: number[], flow: number, net: number}} Beside What feeds a
 *   group or what it feeds: another group, or a node; flow: share of all influence.
 */

/**
 * What flows into a group along edges, or out of it, by groups and nodes, strongest first.
 * @param {Graph} graph
 * @param {number[]} rows
 * @param {Map<number, string>} groups
 * @param {"inputs" | "outputs"} side
 * @returns {Beside[]}
 */
function flowsBeside(graph, rows, groups, side) {
  const inside = new Set(rows);
  /** @type {Map<string | number, Beside>} */
  const found = new Map();
  for (const row of rows) {
    for (const edge of edgesAt(graph[side], row)) {
      const other = side === "inputs" ? graph.source[edge] : graph.target[edge];
      const along = graph.arrived[graph.target[edge]] * graph.share[edge];
      if (inside.has(other) || !along) continue;
      const group = groups.get(other) ?? null;
      const known = found.get(group ?? other) ?? { group, rows: [], flow: 0, net: 0 };
      if (!known.rows.includes(other)) known.rows.push(other);
      known.flow += Math.abs(along);
      known.net += along;
      found.set(group ?? other, known);
    }
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
