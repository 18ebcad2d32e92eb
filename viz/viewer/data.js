// @ts-check
// Data: the graphs of the page, with decoded columns and edges indexed by both ends.
"use strict";

/**
 * @typedef {object} Adjacency Edges by one of their ends: those of node n are
 *   edge[start[n]] … edge[start[n + 1] - 1].
 * @property {Int32Array} start
 * @property {Int32Array} edge
 *
 * @typedef {object} Level A layout of some nodes; the others have NaN.
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
 * @property {number[] | null} columnOf Column of each position, if it is not the position itself.
 *
 * @typedef {object} Side One of two graphs that are compared.
 * @property {Int32Array} partner Row of the same node in the other graph; -1: it has none, -2: it is not on this page.
 * @property {Float64Array} difference More (1) or less (-1) influence than there.
 * @property {number[]} columnOf Column of each position: aligned tokens share one.
 * @property {Level[]} levels
 * @property {({box: number, shared: number} | null)[]} [counterparts] Of each box the one of the other overview, and the share of their influence at nodes of both.
 * @property {Drawing[]} [drawings] Of the overview, in which counterparts have one place.
 *
 * @typedef {{atNodes: Float64Array, atEdges: Float64Array, nNodes: Int32Array, nEdges: Int32Array,
 *   replacement: Float64Array, completeness: Float64Array}} Grid Results of pruning the whole
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
 * @property {[string, string]} origins The model and the dictionary.
 * @property {string} key
 * @property {{graph: string, notes: string} | null} file Names of its own file and of its annotations.
 * @property {string | null} dictionary Equal for graphs with the same features.
 * @property {string[]} tokens
 * @property {number} nLayers
 * @property {string[]} remarks
 * @property {{nodes: number, edges: number}} exact Thresholds up to which the page is complete.
 * @property {boolean} partial Whether the page lacks some nodes or edges.
 * @property {Grid | null} whole Only if the page has a part of the graph.
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
 * @property {Float32Array} frequency Share of tokens on which a feature is active; NaN if unknown.
 * @property {string[]} names
 * @property {string[]} labels
 * @property {string[]} marks
 * @property {Uint16Array | Int32Array} source
 * @property {Uint16Array | Int32Array} target
 * @property {Float32Array} share
 * @property {Float32Array} edgeBefore Above 1 for edges without influence.
 * @property {Stability | null} stability
 * @property {Attention | null} attention
 * @property {{targets: Int32Array, sizes: Float64Array}} differences Predictions with all edges
 *   from the page's nodes, and the absolute sum of the difference of each two rows.
 * @property {Adjacency} inputs Edges by their target.
 * @property {Adjacency} outputs Edges by their source.
 * @property {Map<string, number>} place Row of each name.
 * @property {Level[]} levels For the graph shown alone.
 * @property {Record<string, Feature>} features
 * @property {Measured[]} measured
 * @property {object} annotations
 * @property {Group[]} suggested
 * @property {Overview | null} overview
 */

// As NodeKind in graphs/core/nodes.py; norms and gates are not nodes of a graph.
const KINDS = ["token", "position", "bias", "feature", "error", "logit", "target", "norm", "attention_norm", "gate", "head"];
const KIND = { token: 0, position: 1, bias: 2, feature: 3, error: 4, logit: 5, target: 6, head: 10 };
const ARRAYS = {
  f64: Float64Array, f32: Float32Array, i32: Int32Array, u16: Uint16Array, u8: Uint8Array,
};

/**
 * The data of the page: JSON, a zero byte, and the bytes of its columns (viz/html/columns.py).
 * @param {Uint8Array} content
 * @returns {any}
 */
function readData(content) {
  const end = content.indexOf(0);
  return withColumns(JSON.parse(new TextDecoder().decode(content.subarray(0, end))), content.subarray(end + 1));
}

/** A value with the columns in it decoded. @param {any} value @param {Uint8Array} bytes @returns {any} */
function withColumns(value, bytes) {
  if (Array.isArray(value)) {
    if (typeof value[0] === "string" && typeof value[1] === "number") return decoded(bytes, /** @type {any} */ (value));
    return typeof value[0] === "object" ? value.map((one) => withColumns(one, bytes)) : value;
  }
  if (!value || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, withColumns(one, bytes)]));
}

/** A column, of which all first bytes come first. @param {Uint8Array} bytes @param {[keyof typeof ARRAYS, number, number]} column */
function decoded(bytes, [type, first, count]) {
  const column = new ARRAYS[type](count);
  const size = column.BYTES_PER_ELEMENT;
  const into = new Uint8Array(column.buffer);
  for (let part = 0, from = first; part < size; part++) {
    for (let at = part; at < into.length; at += size) into[at] = bytes[from++];
  }
  return column;
}

/**
 * @param {Record<string, any>} data
 * @returns {Graph}
 */
function readGraph(data) {
  const { before: edgeBefore, ...edges } = data.edges;
  const { nodes } = data;
  const count = nodes.names.length;
  return /** @type {Graph} */ ({
    ...data,
    ...nodes,
    ...edges,
    edgeBefore,
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
  return /** @type {Side} */ ({ ...data, columnOf: data.columnOf, levels });
}

/**
 * A layout with a place for every node; NaN for nodes that are not in it.
 * @param {Record<string, any>} data
 * @param {number} count
 * @param {number[] | null} columnOf
 * @returns {Level}
 */
function readLevel(data, count, columnOf) {
  const { nodes, ...level } = data;
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

/** Key of a feature's description. @param {string} name */
function featureKey(name) {
  const found = /^feature:(\d+\/\d+)@/.exec(name);
  return found ? found[1] : null;
}
