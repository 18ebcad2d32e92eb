// @ts-check
// Paths: the strongest paths of influence between two nodes (graphs/analysis/paths.py).
"use strict";

/**
 * @typedef {{edges: number[], share: number}} Path Edges from the source up to the target; share
 *   of all influence.
 */

/**
 * The strongest paths from one node to a later one, strongest first.  Nodes are in topological
 * order, so the k strongest paths from a node to the target are known when it is visited.
 * @param {Graph} graph
 * @param {number} source
 * @param {number} target
 * @param {number} k
 * @returns {Path[]}
 */
function strongestPaths(graph, source, target, k) {
  /** @typedef {{share: number, edge: number, before: PartialPath | null}} PartialPath */
  /** @type {Map<number, PartialPath[]>} */
  const best = new Map([[target, [{ share: graph.arrived[target], edge: -1, before: null }]]]);
  for (let node = target; node > source; node--) {
    for (const path of best.get(node) ?? []) {
      for (const edge of edgesAt(graph.inputs, node)) {
        const below = graph.source[edge];
        const share = path.share * Math.abs(graph.share[edge]);
        if (below >= source && share > 0) insert(best, below, { share, edge, before: path }, k);
      }
    }
  }
  return source >= target ? [] : (best.get(source) ?? []).map(({ share, ...last }) => {
    const edges = [];
    for (let path = /** @type {PartialPath | null} */ ({ share, ...last }); path && path.edge >= 0; path = path.before) {
      edges.push(path.edge);
    }
    return { edges, share };
  });
}

/**
 * Insert a path among the k strongest of a node.
 * @template {{share: number}} T
 * @param {Map<number, T[]>} best
 * @param {number} node
 * @param {T} path
 * @param {number} k
 */
function insert(best, node, path, k) {
  const known = best.get(node);
  if (!known) {
    best.set(node, [path]);
    return;
  }
  if (known.length === k && known[k - 1].share >= path.share) return;
  let place = known.length;
  while (place > 0 && known[place - 1].share < path.share) place--;
  known.splice(place, 0, path);
  known.length = Math.min(known.length, k);
}

/** Sign of a path: 1 if the source increases the target, -1 if it decreases it. @param {Graph} graph @param {Path} path */
function signOf(graph, path) {
  return path.edges.reduce((sign, edge) => sign * (graph.share[edge] < 0 ? -1 : 1), 1);
}

/**
 * Rows on a path, from the source to the target.
 * @param {Graph} graph
 * @param {Path} path
 */
function rowsOn(graph, path) {
  if (!path.edges.length) return [];
  return [graph.source[path.edges[0]], ...path.edges.map((edge) => graph.target[edge])];
}

/**
 * @typedef {{group: string | null, rows: number[]}} Step A node, or consecutive nodes of one group.
 * @typedef {{steps: Step[], share: number, net: number, paths: Path[]}} Route Paths by the same steps.
 */

/** Name of the group of each row: a person's, else the summary's. @param {Graph} graph @param {Notes} notes @returns {Map<number, string>} */
function groupNames(graph, notes) {
  const found = new Map((graph.overview?.boxes ?? []).filter(({ kind }) => kind === "group").flatMap(({ name, rows }) => rows.map((row) => /** @type {[number, string]} */ ([row, name]))));
  for (const { name, members } of notes.groups) {
    for (const member of members) {
      const row = graph.place.get(member);
      if (row !== undefined) found.set(row, name);
    }
  }
  return found;
}

/**
 * Paths that take the same steps are one route.
 * @param {Graph} graph
 * @param {Path[]} paths
 * @param {Map<number, string>} groups
 * @returns {Route[]} Strongest first.
 */
function routesOf(graph, paths, groups) {
  /** @type {Map<string, Route>} */
  const found = new Map();
  for (const path of paths) {
    /** @type {Step[]} */
    const steps = [];
    for (const row of rowsOn(graph, path)) {
      const group = groups.get(row) ?? null;
      const last = steps[steps.length - 1];
      if (last && group !== null && last.group === group) last.rows.push(row);
      else steps.push({ group, rows: [row] });
    }
    const key = JSON.stringify(steps.map(({ group, rows }) => group ?? rows[0]));
    const known = found.get(key);
    if (known) {
      known.share += path.share;
      known.net += signOf(graph, path) * path.share;
      known.paths.push(path);
      steps.forEach(({ rows }, step) => (known.steps[step].rows = [...new Set([...known.steps[step].rows, ...rows])]));
    } else found.set(key, { steps, share: path.share, net: signOf(graph, path) * path.share, paths: [path] });
  }
  return [...found.values()].sort((a, b) => b.share - a.share);
}
