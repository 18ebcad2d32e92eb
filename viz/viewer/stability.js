// @ts-check
// Stability: how nodes and edges look that do not stay when something else is varied.
"use strict";

/**
 * @typedef {object} Stability
 * @property {Uint8Array} nodes Class of each node, a place in STANDING.
 * @property {Uint8Array} edges
 * @property {{name: string, nodes: number, node_influence: number, edges: number, edge_influence: number}[]} classes
 * @property {string[]} varied What each kind of variation is, with the number of its variants.
 * @property {Record<string, (number | null)[]>} stays In how many of them each node stays.
 */

const STANDING = ["", "core", "contingent", "noise", "outside"]; // no class; …; not in the pruned graph
const STRENGTH = [1, 1, 0.45, 0.15, 0.15]; // of their colour

/** Strength of a node's colour: less for what does not stay. @param {Graph} graph @param {number} row */
function strengthOf(graph, row) {
  return graph.stability ? STRENGTH[graph.stability.nodes[row]] : 1;
}

/** The same of an edge. @param {Graph} graph @param {number} edge */
function edgeStrength(graph, edge) {
  return graph.stability ? STRENGTH[graph.stability.edges[edge]] : 1;
}

/** In what a node stays, and its class; empty if nothing is known. @param {Graph} graph @param {number} row */
function staysText(graph, row) {
  const { stability } = graph;
  const standing = stability ? STANDING[stability.nodes[row]] : "";
  if (!stability || !standing) return "";
  const stays = stability.stays[graph.names[row]];
  if (!stays) return "outside the pruned graph that was varied";
  const parts = stability.varied.map((varied, kind) => stays[kind] !== null && `${stays[kind]} of ${varied}`);
  return `${parts.filter(Boolean).join(", ")}: ${standing}`;
}
