// @ts-check
// Budget: how many of the edges that pruning leaves are drawn.  It changes nothing else.
"use strict";

const FIRST_HELD = 0.8; // share of the influence along edges that those drawn at first hold
const FIRST_EDGES = 300; // of them at most

/**
 * @typedef {object} Budget
 * @property {Int32Array} edges Strongest first.
 * @property {number} held Share of the influence along all of them.
 * @property {number} of Number of edges that could be drawn.
 */

/**
 * The strongest edges that hold a share of the influence along all.
 * @param {Graph} graph
 * @param {Int32Array} edges Strongest first.
 * @param {number | null} wanted A share; null: FIRST_HELD, but at most FIRST_EDGES edges.
 * @returns {Budget}
 */
function budgetOf(graph, edges, wanted) {
  let all = 0;
  for (const edge of edges) all += influenceAlong(graph, edge);
  const [share, most] = wanted === null ? [FIRST_HELD, FIRST_EDGES] : [wanted, edges.length];
  if (share >= 1) return { edges, held: 1, of: edges.length };
  let [count, held] = [0, 0];
  while (count < Math.min(most, edges.length) && held < share * all) held += influenceAlong(graph, edges[count++]);
  return { edges: edges.subarray(0, count), held: all ? held / all : 1, of: edges.length };
}

/** @param {Budget} budget @param {boolean} drawn Whether any are drawn. */
function budgetText({ edges, held, of }, drawn) {
  if (!drawn) return "only edges of the clicked node";
  if (edges.length === of) return of === 1 ? "the only edge" : `all ${counted(of)} edges`;
  return `the strongest ${counted(edges.length)} of ${counted(of)} edges hold ${percent(held)} of the influence along them`;
}
