// @ts-check
// Attention: the heads that carry edges and write into nodes, as viz/page/attention.py gives them.
"use strict";

/**
 * @typedef {object} EdgeHeads By edge of the page, the strongest first; NaN where nothing is known.
 *   Parts are in the unit of the edge's share, and add up to it.
 * @property {number} kept Heads of an edge.
 * @property {Uint16Array} heads
 * @property {Float32Array} parts
 * @property {Float32Array} past
 * @property {Float32Array} rest
 *
 * @typedef {object} NodeHeads By node of `nodes`, in the unit of the node's value.
 * @property {number} kept
 * @property {Int32Array} nodes Ascending.
 * @property {Uint16Array} heads
 * @property {Float32Array} parts
 * @property {Float32Array} others All other heads.
 * @property {Float32Array} rest Embeddings, biases and MLPs.
 *
 * @typedef {object} PatternEffects Through patterns: what makes head nodes look where they look.
 * @property {Uint16Array | Int32Array} source
 * @property {Uint16Array | Int32Array} target A head node.
 * @property {Float32Array} share Of the sizes of all effects on it, signed.
 * @property {Float64Array} total Sum of these sizes, by node.
 *
 * @typedef {[string | null, string, number, number]} LookPart Node, label, part of the difference of
 *   scores with norms held, and with norms running.
 * @typedef {[string | null, string, string | null, string, number]} LookPair Node and label at the
 *   query and at the key, and part of the score.
 * @typedef {object} Look One head at one query.
 * @property {number} layer
 * @property {number} head
 * @property {number} query
 * @property {number} key That it carries most from.
 * @property {number} carries Share of all influence that it writes into nodes at the query.
 * @property {number[]} attention
 * @property {number} score
 * @property {number | null} difference
 * @property {number | null} logOdds
 * @property {LookPart[]} atQuery
 * @property {LookPart[]} atKeys
 * @property {LookPair[]} pairs
 * @property {number | null} pairsShare
 *
 * @typedef {object} Attention
 * @property {number} nHeads Of a layer.
 * @property {EdgeHeads | null} edges
 * @property {{heads: Float64Array, past: number, rest: number} | null} carried Shares of the influence along edges.
 * @property {NodeHeads | null} nodes
 * @property {PatternEffects | null} effects
 * @property {Look[]} looks That carry most first.
 *
 * @typedef {{heads: {head: string, share: number}[], past: number, rest: number}} Over What carries an
 *   edge, as shares of the sizes of its parts: above 0 what works with the edge, below 0 against it.
 */

const NO_HEAD = 65535;

/** Whether heads are nodes of the graph. @param {Graph} graph */
function hasHeadNodes({ kind }) {
  return kind.includes(KIND.head);
}

/** Name of a head, as in 4.5. @param {Attention} attention @param {number} number */
function headText({ nHeads }, number) {
  return `${Math.floor(number / nHeads)}.${number % nHeads}`;
}

/** Number of a head, or null. @param {Attention} attention @param {string} text */
function headNumber({ nHeads }, text) {
  const found = /^(\d{1,4})\.(\d{1,4})$/.exec(text);
  return found && Number(found[2]) < nHeads ? Number(found[1]) * nHeads + Number(found[2]) : null;
}

/** A head at a position, named as its node. @param {string} head @param {number} pos */
function headName(head, pos) {
  return `head:${head.replace(".", "/")}@${pos}`;
}

/** Head and position in the name of a head's node. @param {string | null} name */
function headPlace(name) {
  const found = /^head:(\d+)\/(\d+)@(\d+)$/.exec(name ?? "");
  return found && { head: `${found[1]}.${found[2]}`, pos: Number(found[3]) };
}

/** Whether the heads of an edge are known. @param {Graph} graph @param {number} edge */
function knowsHeads({ attention }, edge) {
  return Boolean(attention?.edges && edge >= 0 && edge < attention.edges.past.length && !Number.isNaN(attention.edges.past[edge]));
}

/** Sizes of an edge's parts together. @param {EdgeHeads} edges @param {number} edge */
function sizeOfParts({ kept, parts, past, rest }, edge) {
  let size = Math.abs(past[edge]) + Math.abs(rest[edge]);
  for (let i = edge * kept; i < (edge + 1) * kept; i++) size += Math.abs(parts[i]) || 0;
  return size;
}

/** What carries an edge; null if that is not known. @param {Graph} graph @param {number} edge @returns {Over | null} */
function overHeads(graph, edge) {
  const { attention } = graph;
  if (!attention?.edges || !knowsHeads(graph, edge)) return null;
  const { kept, heads, parts, past, rest } = attention.edges;
  const scale = (graph.share[edge] < 0 ? -1 : 1) / (sizeOfParts(attention.edges, edge) || 1);
  const places = Array.from({ length: kept }, (_, i) => edge * kept + i).filter((i) => heads[i] !== NO_HEAD && parts[i]);
  return {
    heads: places.map((i) => ({ head: headText(attention, heads[i]), share: parts[i] * scale })),
    past: past[edge] * scale,
    rest: rest[edge] * scale,
  };
}

/**
 * Edges that cross one of these heads first, with at least this share of the sizes of their parts;
 * null if no head is chosen, or none is known.
 * @param {Graph} graph
 * @param {string[]} chosen
 * @param {number} least
 * @returns {Uint8Array | null}
 */
function edgesOver({ attention, links }, chosen, least) {
  if (!attention?.edges || !chosen.length) return null;
  const numbers = new Set(chosen.map((text) => headNumber(attention, text)));
  const { kept, heads, parts, past } = attention.edges;
  const over = new Uint8Array(links);
  for (let edge = 0; edge < past.length; edge++) {
    let size = 0;
    for (let i = edge * kept; i < (edge + 1) * kept; i++) if (numbers.has(heads[i])) size += Math.abs(parts[i]);
    over[edge] = Number(size > 0 && size >= least * sizeOfParts(attention.edges, edge));
  }
  return over;
}

/** What heads write into a node, strongest first; null if that is not known. @param {Graph} graph @param {number} row */
function writtenInto({ attention }, row) {
  const place = attention?.nodes ? attention.nodes.nodes.indexOf(row) : -1;
  if (!attention?.nodes || place < 0) return null;
  const { kept, heads, parts, others, rest } = attention.nodes;
  const places = Array.from({ length: kept }, (_, i) => place * kept + i).filter((i) => heads[i] !== NO_HEAD && parts[i]);
  return { heads: places.map((i) => ({ head: headText(attention, heads[i]), part: parts[i] })), others: others[place], rest: rest[place] };
}

/** The look of a head at a query. @param {Graph} graph @param {string | null} name */
function lookOf({ attention }, name) {
  return attention?.looks.find(({ layer, head, query }) => headName(`${layer}.${head}`, query) === name) ?? null;
}

/** Share of the influence along edges that a head carries; null if that is not known. @param {Graph} graph @param {string} head */
function carriedBy({ attention }, head) {
  const number = attention && headNumber(attention, head);
  return attention?.carried && number !== null ? (attention.carried.heads[number ?? 0] ?? 0) : null;
}

/**
 * What makes a head node look where it looks, and the head nodes that a node makes look, largest
 * share first.
 * @param {Graph} graph
 * @param {number} row
 * @returns {{because: Link[], makes: Link[]}}
 */
function lookLinks({ attention }, row) {
  const found = { because: /** @type {Link[]} */ ([]), makes: /** @type {Link[]} */ ([]) };
  if (!attention?.effects) return found;
  const { source, target, share, total } = attention.effects;
  for (let i = 0; i < share.length; i++) {
    const link = { edge: -1, share: share[i], weight: share[i] * total[target[i]] };
    if (target[i] === row) found.because.push({ ...link, row: source[i] });
    if (source[i] === row) found.makes.push({ ...link, row: target[i] });
  }
  for (const links of Object.values(found)) links.sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
  return found;
}
