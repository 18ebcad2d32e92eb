// @ts-check
// Pruning: the part of a graph left at two thresholds, and its scores.
// The same rules and formulas as graphs/analysis/prune.py and graphs/analysis/scores.py.
"use strict";

/**
 * @typedef {{nodes: number, edges: number, keepErrors: boolean}} Thresholds
 * @typedef {{node: Uint8Array, edge: Uint8Array, nNodes: number, nEdges: number}} Kept
 * @typedef {{replacement: number, completeness: number}} Scores
 */

/** @param {Graph} graph @param {number} node */
const isInput = (graph, node) => graph.kind[node] <= KIND.position;
/** @param {Graph} graph @param {number} node */
const isTarget = (graph, node) => graph.kind[node] === KIND.logit || graph.kind[node] === KIND.target;

/**
 * @param {Graph} graph
 * @param {Thresholds} thresholds
 * @returns {Kept}
 */
function pruned(graph, { nodes, edges, keepErrors }) {
  const always = new Uint8Array(graph.count);
  const node = new Uint8Array(graph.count);
  for (let n = 0; n < graph.count; n++) {
    const error = graph.kind[n] === KIND.error;
    always[n] = Number(isInput(graph, n) || isTarget(graph, n) || (keepErrors && error));
    const leads = nodes >= 1 ? graph.influence[n] > 0 : graph.before[n] < nodes;
    node[n] = Number(always[n] || leads);
  }
  const edge = new Uint8Array(graph.links);
  for (let e = 0; e < graph.links; e++) {
    const leads = edges >= 1 ? graph.edgeBefore[e] <= 1 : graph.edgeBefore[e] < edges;
    edge[e] = Number(leads && node[graph.source[e]] && node[graph.target[e]]);
  }
  connect(graph, node, edge, always);
  return { node, edge, nNodes: total(node), nEdges: total(edge) };
}

/**
 * Whether the page contains all that these thresholds leave of the whole graph.
 * @param {Graph} graph
 * @param {Thresholds} thresholds
 */
function isExact({ exact, partial }, { nodes, edges, keepErrors }) {
  return !partial || (nodes <= exact.nodes && edges <= exact.edges && !(keepErrors && exact.nodes < 1));
}

/**
 * Results for the whole graph at the grid point nearest to these thresholds.
 * @param {Graph} graph
 * @param {Thresholds} thresholds
 */
function wholeAt({ whole }, { nodes, edges, keepErrors }) {
  if (!whole) return null;
  const nearest = (/** @type {Float64Array} */ points, /** @type {number} */ value) =>
    points.reduce((best, point, i) => (Math.abs(point - value) < Math.abs(points[best] - value) ? i : best), 0);
  const [i, j] = [nearest(whole.atNodes, nodes), nearest(whole.atEdges, edges)];
  const at = ((keepErrors ? whole.atNodes.length : 0) + i) * whole.atEdges.length + j;
  return {
    nodes: whole.atNodes[i], edges: whole.atEdges[j], nNodes: whole.nNodes[at], nEdges: whole.nEdges[at],
    scores: { replacement: whole.replacement[at], completeness: whole.completeness[at] },
  };
}

/**
 * Remove nodes that lack the edges they need, until none does.
 * @param {Graph} graph
 * @param {Uint8Array} node
 * @param {Uint8Array} edge
 * @param {Uint8Array} always
 */
function connect(graph, node, edge, always) {
  for (let changed = true; changed; ) {
    changed = false;
    const feeds = new Uint8Array(graph.count);
    const fed = new Uint8Array(graph.count);
    for (let e = 0; e < graph.links; e++) {
      if (edge[e]) feeds[graph.source[e]] = fed[graph.target[e]] = 1;
    }
    for (let n = 0; n < graph.count; n++) {
      if (!node[n] || always[n]) continue;
      const needsInput = (graph.kind[n] === KIND.feature || graph.kind[n] === KIND.head) && graph.expanded[n];
      if (feeds[n] && (fed[n] || !needsInput)) continue;
      node[n] = 0;
      changed = true;
    }
    for (let e = 0; changed && e < graph.links; e++) {
      if (edge[e] && !(node[graph.source[e]] && node[graph.target[e]])) edge[e] = 0;
    }
  }
}

/**
 * Influence of the seed over all paths, seed included; nodes in `ends` pass nothing on.
 * @param {Graph} graph
 * @param {(edge: number) => number} share
 * @param {Uint8Array | null} ends
 */
function carried(graph, share, ends = null) {
  const arrived = Float64Array.from(graph.seed);
  for (let n = graph.count - 1; n >= 0; n--) {
    if (!arrived[n] || ends?.[n]) continue;
    for (const e of edgesAt(graph.inputs, n)) arrived[graph.source[e]] += arrived[n] * share(e);
  }
  return arrived;
}

/**
 * Scores of a pruned graph: removed influence counts as error.
 * @param {Graph} graph
 * @param {Kept} kept
 * @returns {Scores}
 */
function scoresOfPruned(graph, kept) {
  const share = (/** @type {number} */ e) => (kept.edge[e] ? Math.abs(graph.share[e]) : 0);
  const errors = graph.kind.map((kind) => Number(kind === KIND.error));
  return sharedOut(graph, carried(graph, share, errors), errors, share);
}

/**
 * Scores of some nodes, in either of the conventions of graphs/analysis/scores.py.
 * @param {Graph} graph
 * @param {Uint8Array} kept
 * @param {"absorbed" | "renormalised"} convention
 * @returns {Scores}
 */
function scoresOfNodes(graph, kept, convention) {
  const size = (/** @type {number} */ e) => Math.abs(graph.share[e]);
  const isError = graph.kind.map((kind) => Number(kind === KIND.error));
  const belongs = kept.map((own, n) => Number(own || isInput(graph, n) || isTarget(graph, n)));
  if (convention === "absorbed") {
    const errors = isError.map((error, n) => Number(error || !belongs[n]));
    return sharedOut(graph, carried(graph, size, errors), errors, size);
  }
  const part = belongs.map((own, n) => Number(isError[n] ? 0 : own));
  for (let e = 0; e < graph.links; e++) {
    const target = graph.target[e];
    if (isError[graph.source[e]] && kept[target] && !isError[target]) part[graph.source[e]] = 1;
  }
  const inside = (/** @type {number} */ e) => part[graph.source[e]] && part[graph.target[e]];
  const sums = new Float64Array(graph.count);
  for (let e = 0; e < graph.links; e++) if (inside(e)) sums[graph.target[e]] += size(e);
  const share = (/** @type {number} */ e) => (inside(e) ? size(e) / sums[graph.target[e]] : 0);
  return sharedOut(graph, carried(graph, share), isError, null);
}

/**
 * @param {Graph} graph
 * @param {Float64Array} arrived
 * @param {Uint8Array} errors
 * @param {((edge: number) => number) | null} share Share that rows pass on; null: all.
 * @returns {Scores}
 */
function sharedOut(graph, arrived, errors, share) {
  let atInputs = 0;
  let atErrors = 0;
  let anywhere = 0;
  for (let n = 0; n < graph.count; n++) {
    let lost = 0;
    if (share && !errors[n] && graph.total[n] > 0 && arrived[n] > 0) {
      let left = 1;
      for (const e of edgesAt(graph.inputs, n)) left -= share(e);
      lost = arrived[n] * Math.max(0, left);
    }
    if (isInput(graph, n)) atInputs += arrived[n];
    atErrors += lost + (errors[n] ? arrived[n] : 0);
    anywhere += arrived[n] + lost;
  }
  return {
    replacement: atInputs > 0 ? atInputs / (atInputs + atErrors) : 0,
    completeness: anywhere > 0 ? 1 - atErrors / anywhere : 0,
  };
}

/** @param {Uint8Array} mask */
function total(mask) {
  let sum = 0;
  for (const one of mask) sum += one;
  return sum;
}
