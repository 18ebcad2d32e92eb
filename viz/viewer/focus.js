// @ts-check
// Focus: visible nodes, inputs and outputs of the clicked node, and the edges drawn for it.
"use strict";

/**
 * @typedef {{row: number, edge: number, share: number, weight: number}} Link The node at the other
 *   end; share of the target's inputs and weight are signed; edge is -1 in a difference.
 * @typedef {{row: number, inputs: Link[], outputs: Link[], because: Link[], makes: Link[], near: Map<number, number>}} Focus near:
 *   nodes at the other ends, with the share of the strongest link.
 * @typedef {{source: number, target: number, share: number, edge: number, dashed?: boolean}} Drawn
 */

const MOST_DRAWN = 1000; // highlighted edges

/**
 * Visible nodes: those left by pruning and filters, and all pinned ones.
 * @param {Graph} graph
 * @param {Kept} kept
 * @param {View} view
 * @param {Notes} notes
 * @param {string | null} clicked
 */
function visibleNodes(graph, kept, view, notes, clicked) {
  const visible = new Uint8Array(graph.count);
  const without = new Set(view.without.map((kind) => KINDS.indexOf(kind)));
  const tokens = view.tokens && new Set(view.tokens);
  for (let n = 0; n < graph.count; n++) {
    const layer = graph.layer[n];
    const outside = view.layers && layer >= 0 && !isTarget(graph, n) && (layer < view.layers[0] || layer > view.layers[1]);
    const elsewhere = tokens && graph.pos[n] >= 0 && !isTarget(graph, n) && !tokens.has(graph.pos[n]);
    visible[n] = Number(kept.node[n] && !isTooFrequent(graph, view, n) && !without.has(graph.kind[n]) && !outside && !elsewhere);
  }
  const always = [...notes.pins, ...notes.groups.filter((g) => !g.automatic).flatMap((group) => group.members)];
  for (const name of clicked ? [...always, clicked] : always) {
    const row = graph.place.get(name);
    if (row !== undefined) visible[row] = 1;
  }
  for (const name of notes.hidden) {
    const row = graph.place.get(name);
    if (row !== undefined && name !== clicked) visible[row] = 0;
  }
  return visible;
}

/** Whether a feature is hidden because it is active on too many tokens. @param {Graph} graph @param {View} view @param {number} n */
function isTooFrequent(graph, { frequency }, n) {
  return frequency !== null && graph.frequency[n] > frequency; // false for NaN, which is unknown
}

/**
 * @param {Graph} graph
 * @param {Uint8Array} visible
 * @param {number} row
 * @param {number | undefined} minus
 * @returns {Focus}
 */
function focusOn(graph, visible, row, minus) {
  const inputs = minus === undefined ? linksInto(graph, row) : differenceOf(graph, row, minus);
  const outputs = linksFrom(graph, row);
  const { because, makes } = lookLinks(graph, row);
  const seen = (/** @type {Link} */ link) => visible[link.row];
  const near = new Map();
  for (const { row: other, share } of [...inputs, ...outputs, ...because, ...makes].filter(seen)) {
    if (Math.abs(share) > Math.abs(near.get(other) ?? 0)) near.set(other, share);
  }
  return { row, inputs: inputs.filter(seen), outputs: outputs.filter(seen), because: because.filter(seen), makes: makes.filter(seen), near };
}

/** Inputs of a node, largest share first. @param {Graph} graph @param {number} row @returns {Link[]} */
function linksInto(graph, row) {
  const links = Array.from(edgesAt(graph.inputs, row), (edge) => {
    const share = graph.share[edge];
    return { row: graph.source[edge], edge, share, weight: share * graph.total[row] };
  });
  return links.sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
}

/** Outputs of a node, largest share of the other's inputs first. @param {Graph} graph @param {number} row @returns {Link[]} */
function linksFrom(graph, row) {
  const links = Array.from(edgesAt(graph.outputs, row), (edge) => {
    const [other, share] = [graph.target[edge], graph.share[edge]];
    return { row: other, edge, share, weight: share * graph.total[other] };
  });
  return links.sort((a, b) => Math.abs(b.share) - Math.abs(a.share) || a.edge - b.edge);
}

/**
 * Inputs of the difference of two predictions.  Rows are linear in their target, so this is exact
 * if the page has all edges of both: see differenceSize.
 * @param {Graph} graph
 * @param {number} row
 * @param {number} minus
 * @returns {Link[]}
 */
function differenceOf(graph, row, minus) {
  const weights = new Map(linksInto(graph, row).map((link) => [link.row, link.weight]));
  for (const { row: other, weight } of linksInto(graph, minus)) {
    weights.set(other, (weights.get(other) ?? 0) - weight);
  }
  const held = [...weights.values()].reduce((sum, weight) => sum + Math.abs(weight), 0);
  const sum = differenceSize(graph, row, minus) ?? held;
  const links = [...weights].map(([other, weight]) => ({ row: other, edge: -1, share: weight / (sum || 1), weight }));
  return links.sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
}

/**
 * Absolute sum of the difference of two rows in the whole graph; null if the page lacks edges.
 * @param {Graph} graph
 * @param {number} row
 * @param {number} minus
 */
function differenceSize({ differences: { targets, sizes } }, row, minus) {
  const [one, other] = [targets.indexOf(row), targets.indexOf(minus)];
  return one < 0 || other < 0 ? null : sizes[one * targets.length + other];
}

/**
 * Edges drawn for a focus, strongest first.
 * @param {Graph} graph
 * @param {Focus} focus
 * @param {View["links"]} links
 * @param {Set<number>} pinned
 * @returns {Drawn[]}
 */
function drawnFor(graph, focus, links, pinned) {
  const between = (/** @type {number} */ source, /** @type {number} */ target, /** @type {Link} */ { share, edge }, dashed = false) => ({ source, target, share, edge, dashed });
  const into = [...focus.inputs.map((link) => between(link.row, focus.row, link)), ...focus.because.map((link) => between(link.row, focus.row, link, true))];
  const from = [...focus.outputs.map((link) => between(focus.row, link.row, link)), ...focus.makes.map((link) => between(focus.row, link.row, link, true))];
  const chosen = links === "inputs" ? into : links === "outputs" ? from : [...into, ...from];
  const both = links === "pinned" ? chosen.filter((e) => pinned.has(e.source) && pinned.has(e.target)) : chosen;
  return both.sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, MOST_DRAWN);
}

/**
 * Edges between pinned nodes.
 * @param {Graph} graph
 * @param {Set<number>} pinned
 * @returns {Drawn[]}
 */
function drawnBetween(graph, pinned) {
  /** @type {Drawn[]} */
  const found = [];
  for (const target of pinned) {
    for (const edge of edgesAt(graph.inputs, target)) {
      if (pinned.has(graph.source[edge])) found.push(drawnEdge(graph, edge));
    }
  }
  return found.sort((a, b) => Math.abs(b.share) - Math.abs(a.share)).slice(0, MOST_DRAWN);
}

/** @param {Graph} graph @param {number} edge @returns {Drawn} */
function drawnEdge({ source, target, share }, edge) {
  return { source: source[edge], target: target[edge], share: share[edge], edge };
}

/** Rows whose name, label or token contains a text. @param {Graph} graph @param {Notes} notes @param {string} text */
function found(graph, notes, text) {
  const wanted = text.trim().toLowerCase();
  const rows = new Set();
  if (!wanted) return rows;
  for (let row = 0; row < graph.count; row++) {
    const token = graph.pos[row] < 0 ? "" : graph.tokens[graph.pos[row]];
    const searched = `${graph.names[row]} ${labelOf(graph, notes, row)} ${token}`.toLowerCase();
    if (searched.includes(wanted)) rows.add(row);
  }
  return rows;
}

/** Rows of names that are in a graph. @param {Graph} graph @param {Iterable<string>} names @returns {Set<number>} */
function rowsOf(graph, names) {
  const rows = new Set();
  for (const name of names) {
    const row = graph.place.get(name);
    if (row !== undefined) rows.add(row);
  }
  return rows;
}
