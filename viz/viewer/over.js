// @ts-check
// Over: the heads that an edge crosses first, beside its link in a list.
"use strict";

/**
 * @typedef {object} HeadEvents
 * @property {string | null} open The edge that is shown in detail, as "SOURCE>TARGET".
 * @property {Uint8Array | null} lit Edges that the filter of heads leaves lit.
 * @property {(edge: string | null) => void} onEdge
 * @property {(name: string) => void} onHead A head at a position, by the name of its node.
 */

/** Name of an edge. @param {Graph} graph @param {number} edge */
function edgeName(graph, edge) {
  return `${graph.names[graph.source[edge]]}>${graph.names[graph.target[edge]]}`;
}

/** A part of an edge: its size, with a minus sign if it works against the edge. @param {number} share */
function wholePercent(share) {
  const size = Math.abs(share) < 0.005 ? "<1%" : `${Math.round(100 * Math.abs(share))}%`;
  return share < 0 ? `−${size}` : size;
}

/** Button that says what carries most of a link, and opens its detail. @param {PanelContext} context @param {string} title @param {Link} link */
function overButton({ graph, heads }, title, link) {
  const over = overHeads(graph, link.edge);
  if (!heads || !over) return null;
  const { open, onEdge } = heads;
  const name = edgeName(graph, link.edge);
  const most = [...over.heads, { head: "past", share: over.past }, { head: "others", share: over.rest }].reduce((a, b) => (Math.abs(b.share) > Math.abs(a.share) ? b : a));
  return element("button.tool.over", {
    "data-key": `over ${title} ${name}`, "aria-expanded": String(open === name), title: "which heads carry it",
    "aria-label": `${most.head === "past" ? "past attention" : most.head === "others" ? "other heads" : `head ${most.head}`} ${wholePercent(most.share)}: which heads carry it`,
    click: () => onEdge(open === name ? null : name),
  }, `${most.head} ${wholePercent(most.share)}`);
}

/** The heads of a link, if it is open. @param {PanelContext} context @param {string} title @param {Link} link */
function overDetail({ graph, heads }, title, link) {
  const over = overHeads(graph, link.edge);
  if (!heads || !over || heads.open !== edgeName(graph, link.edge)) return null;
  const pos = graph.pos[graph.target[link.edge]];
  const parts = over.heads.map(({ head, share }) =>
    element("button", { "data-key": `carries ${title} ${head}`, click: () => heads.onHead(headName(head, pos)), title: `where head ${head} looks` },
      element("b", {}, wholePercent(share)), ` head ${head}`));
  const others = [["past attention", over.past], ["other heads", over.rest]].filter(([, share]) => share);
  return element("p.carries", { title: "of the sizes of its parts; a head carries what crosses it first, and − works against the edge" },
    ...parts, ...others.map(([name, share]) => element("span", {}, element("b", {}, wholePercent(Number(share))), ` ${name}`)));
}

/** Heads that write most into a node. @param {PanelContext} context @param {number} row */
function writtenBy({ graph, heads }, row) {
  const found = writtenInto(graph, row);
  if (!found || !heads || !found.heads.length) return null;
  const buttons = found.heads.map(({ head, part }) =>
    element("button", { "data-key": `writes ${head}`, click: () => heads.onHead(headName(head, graph.pos[row])), title: `where head ${head} looks` }, `${head} `, element("b", {}, plus(part))));
  return element("p.carries.written", { title: "what each head writes at this position, as the node reads it; with the rest it adds up to the node's value" },
    element("span.quiet", {}, "heads write "), ...buttons, element("span", {}, "all others ", element("b", {}, plus(found.others))),
    element("span", {}, "embeddings, biases and MLPs ", element("b", {}, plus(found.rest))));
}
