// @ts-check
// Paths: the strongest ways along which influence goes between two nodes (graphs/analysis/paths.py).
"use strict";

/**
 * @typedef {{edges: number[], share: number}} Path Edges from the source up to the target; share
 *   of all influence.
 */

/**
 * The strongest paths from one node to a later one, strongest first.  Nodes are in topological
 * order, so the k best ways down to each are known when it is its turn.
 * @param {Graph} graph
 * @param {number} source
 * @param {number} target
 * @param {number} k
 * @returns {Path[]}
 */
function strongestPaths(graph, source, target, k) {
  /** @typedef {{share: number, edge: number, before: Way | null}} Way */
  /** @type {Map<number, Way[]>} */
  const ways = new Map([[target, [{ share: graph.arrived[target], edge: -1, before: null }]]]);
  for (let node = target; node > source; node--) {
    for (const way of ways.get(node) ?? []) {
      for (const edge of edgesAt(graph.inputs, node)) {
        const below = graph.source[edge];
        const share = way.share * Math.abs(graph.share[edge]);
        if (below >= source && share > 0) insert(ways, below, { share, edge, before: way }, k);
      }
    }
  }
  return source >= target ? [] : (ways.get(source) ?? []).map(({ share, ...last }) => {
    const edges = [];
    for (let way = /** @type {Way | null} */ ({ share, ...last }); way && way.edge >= 0; way = way.before) {
      edges.push(way.edge);
    }
    return { edges, share };
  });
}

/**
 * Put a way among the k best of a node.
 * @template {{share: number}} T
 * @param {Map<number, T[]>} ways
 * @param {number} node
 * @param {T} way
 * @param {number} k
 */
function insert(ways, node, way, k) {
  const known = ways.get(node);
  if (!known) {
    ways.set(node, [way]);
    return;
  }
  if (known.length === k && known[k - 1].share >= way.share) return;
  let place = known.length;
  while (place > 0 && known[place - 1].share < way.share) place--;
  known.splice(place, 0, way);
  known.length = Math.min(known.length, k);
}

/** Whether the source raises (1) or lowers (-1) the target. @param {Graph} graph @param {Path} path */
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
