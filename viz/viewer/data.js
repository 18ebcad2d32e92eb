// @ts-check
// Data: a graph as the page holds it, columns decoded and edges indexed from both ends.
"use strict";

/**
 * @typedef {object} Adjacency Edges by one of their ends: those of node n are
 *   edge[start[n]] … edge[start[n + 1] - 1].
 * @property {Int32Array} start
 * @property {Int32Array} edge
 *
 * @typedef {object} Level Where the nodes of a part go; nodes that are not in it have NaN.
 * @property {Float32Array} x
 * @property {Float32Array} y
 * @property {Int32Array} columns
 * @property {Float64Array} columnX
 * @property {Float64Array} columnWidth
 * @property {Float64Array} rowY
 * @property {Float64Array} rowHeight
 * @property {string[]} rows
 * @property {number} width
 * @property {number} height
 * @property {number[] | null} columnOf Column of each position, where it is not its own.
 *
 * @typedef {object} Side One of two graphs that are compared.
 * @property {Int32Array} partner Row of the same node in the other graph, or -1.
 * @property {Float64Array} difference More (1) or less (-1) influence than there.
 * @property {number[]} columnOf Column of each position: tokens that stand for each other share one.
 * @property {Level[]} levels
 *
 * @typedef {{atNodes: Float64Array, atEdges: Float64Array, nNodes: Int32Array, nEdges: Int32Array,
 *   replacement: Float64Array, completeness: Float64Array}} Grid What pruning leaves of the whole
 *   graph, by node threshold, then edge threshold: errors pruned first, then errors kept.
 * @typedef {{name: string, members: string[], automatic: boolean}} Group
 * @typedef {{tokens: string[], activations: number[]}} Example
 * @typedef {{label: string, said: string[], raised: string[], lowered: string[],
 *   frequency: number | null, histogram: number[], largest: number | null,
 *   examples: Example[]}} Feature
 * @typedef {{what: string, regime: string, target: string, predicted: number | null,
 *   measured: number}} Measured
 * @typedef {{name: string, text: string, holds: boolean | null}} Check
 *
 * @typedef {object} Graph
 * @property {number} count Number of nodes.
 * @property {number} links Number of edges.
 * @property {string} heading
 * @property {string} origin
 * @property {string} key
 * @property {string | null} dictionary The same for all graphs whose features are the same.
 * @property {string[]} tokens
 * @property {number} nLayers
 * @property {string[]} remarks
 * @property {{nodes: number, edges: number}} exact Thresholds up to which nothing is lacking.
 * @property {boolean} partial Whether the page lacks nodes or edges of it.
 * @property {Grid | null} whole Only of a graph that the page has a part of.
 * @property {Check[]} checks
 * @property {string[]} failures
 * @property {{replacement: number, completeness: number}} scores
 * @property {{nodes: number, edges: number}} defaults
 * @property {string | null} featurePage
 * @property {Uint8Array} kind
 * @property {Int32Array} layer
 * @property {Int32Array} pos
 * @property {Float32Array} activation
 * @property {Float64Array} arrived
 * @property {Float64Array} influence
 * @property {Float64Array} before
 * @property {Float64Array} seed
 * @property {Float64Array} total
 * @property {Float32Array} value
 * @property {Uint8Array} expanded
 * @property {Float32Array} frequency Share of tokens that a feature fires on, where it is known.
 * @property {string[]} names
 * @property {string[]} labels
 * @property {string[]} marks
 * @property {Uint16Array | Int32Array} source
 * @property {Uint16Array | Int32Array} target
 * @property {Float32Array} share
 * @property {Float32Array} edgeBefore More than 1 for edges that carry nothing.
 * @property {{targets: Int32Array, sizes: Float64Array}} differences Predictions that have all
 *   edges from the page's nodes, and what of the whole graph feeds the difference of each two.
 * @property {Adjacency} inputs Edges by their target.
 * @property {Adjacency} outputs Edges by their source.
 * @property {Map<string, number>} place Row of each name.
 * @property {Level[]} levels Of the graph alone.
 * @property {Record<string, Feature>} features
 * @property {Measured[]} measured
 * @property {object} annotations
 * @property {Group[]} suggested
 */

const KINDS = ["token", "position", "bias", "feature", "error", "logit", "target"];
const KIND = { token: 0, position: 1, bias: 2, feature: 3, error: 4, logit: 5, target: 6 };
const ARRAYS = {
  f64: Float64Array, f32: Float32Array, i32: Int32Array, u16: Uint16Array, u8: Uint8Array,
};

/** @param {[keyof typeof ARRAYS, string]} column */
function decoded([type, text]) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return new ARRAYS[type](bytes.buffer);
}

/**
 * Members of a record that are columns, decoded; the others as they are.
 * @param {Record<string, any>} record
 * @returns {Record<string, any>}
 */
function withColumns(record) {
  const entries = Object.entries(record).map(([name, value]) => [
    name,
    Array.isArray(value) && value.length === 2 && value[0] in ARRAYS ? decoded(/** @type {any} */ (value)) : value,
  ]);
  return Object.fromEntries(entries);
}

/**
 * @param {Record<string, any>} data
 * @returns {Graph}
 */
function readGraph(data) {
  const { before: edgeBefore, ...edges } = withColumns(data.edges);
  const nodes = withColumns(data.nodes);
  const count = nodes.names.length;
  return /** @type {Graph} */ ({
    ...data,
    ...nodes,
    ...edges,
    edgeBefore,
    differences: withColumns(data.differences),
    whole: data.whole && withColumns(data.whole),
    count,
    links: edges.source.length,
    inputs: adjacency(edges.target, count),
    outputs: adjacency(edges.source, count),
    place: new Map(nodes.names.map((/** @type {string} */ name, /** @type {number} */ row) => [name, row])),
    influence: nodes.arrived.map((/** @type {number} */ share, /** @type {number} */ n) => share - nodes.seed[n]),
    marks: nodes.marks.map((/** @type {string | null} */ mark, /** @type {number} */ n) => mark ?? nodes.labels[n]),
    levels: data.levels.map((/** @type {any} */ level) => readLevel(level, count, null)),
  });
}

/**
 * @param {Record<string, any>} data
 * @param {Graph} graph
 * @returns {Side}
 */
function readSide(data, graph) {
  const levels = data.levels.map((/** @type {any} */ level) => readLevel(level, graph.count, data.columnOf));
  return /** @type {Side} */ ({ ...withColumns(data), columnOf: data.columnOf, levels });
}

/**
 * A layout with a place for every node, NaN for those that are not in it.
 * @param {Record<string, any>} data
 * @param {number} count
 * @param {number[] | null} columnOf
 * @returns {Level}
 */
function readLevel(data, count, columnOf) {
  const { nodes, ...level } = withColumns(data);
  const [x, y] = [level.x, level.y].map((known) => {
    const all = new Float32Array(count).fill(NaN);
    nodes.forEach((/** @type {number} */ node, /** @type {number} */ i) => (all[node] = known[i]));
    return all;
  });
  return /** @type {Level} */ ({ ...level, x, y, columnOf });
}

/**
 * @param {ArrayLike<number>} end
 * @param {number} count
 * @returns {Adjacency}
 */
function adjacency(end, count) {
  const start = new Int32Array(count + 1);
  for (let edge = 0; edge < end.length; edge++) start[end[edge] + 1]++;
  for (let node = 0; node < count; node++) start[node + 1] += start[node];
  const next = start.slice();
  const edges = new Int32Array(end.length);
  for (let edge = 0; edge < end.length; edge++) edges[next[end[edge]]++] = edge;
  return { start, edge: edges };
}

/**
 * Edges at a node.
 * @param {Adjacency} side
 * @param {number} node
 */
function edgesAt(side, node) {
  return side.edge.subarray(side.start[node], side.start[node + 1]);
}

/** The key under which what is known of a feature is kept. @param {string} name */
function featureKey(name) {
  const found = /^feature:(\d+\/\d+)@/.exec(name);
  return found ? found[1] : null;
}
