// @ts-check
// Lists: inputs and outputs of a node, and all nodes by token, for mouse, keyboard and screen readers.
"use strict";

const ROWS = 100; // shown initially

/**
 * @typedef {object} PanelContext Graph, notes and callbacks of a panel.
 * @property {Graph} graph
 * @property {Notes} notes
 * @property {HeadEvents | null} heads Null where nothing is known of heads.
 * @property {(row: number) => void} onWalk
 * @property {(rows: number[]) => void} onPin Pin these, or unpin a single pinned one.
 * @property {(row: number | null) => void} onPoint
 */

/**
 * @param {PanelContext} context
 * @param {string} title
 * @param {string} empty
 * @param {Link[]} links
 * @param {number} most
 * @param {() => void} onMore
 */
function linkList(context, title, empty, links, most, onMore) {
  const rows = links.slice(0, most).map((link) => linkRow(context, title, link));
  const over = context.heads && links.some((link) => knowsHeads(context.graph, link.edge));
  const more = links.length > most && element("button.more", { click: onMore, "data-key": `${title} more` }, `all ${counted(links.length)}`);
  return element(
    "section.links", { "aria-label": title },
    element("h3", {}, title, element("span.count", {}, ` ${counted(links.length)}`), links.length > 1 && pinAllButton(context, title, links.slice(0, most).map(({ row }) => row))),
    links.length
      ? element(`div.heads${over ? ".over" : ""}`, { "aria-hidden": "true" }, element("span", {}, "share"), element("span", {}, "weight"), element("span", {}, "node"), over && element("span", {}, "mostly over"))
      : element("p.quiet", {}, empty),
    element("ul", { keydown: stepThrough }, ...rows),
    more,
  );
}

/** Listeners of a button that represents a node. @param {PanelContext} context @param {number} row */
function walking({ onWalk, onPoint }, row) {
  const point = () => onPoint(row);
  const leave = () => onPoint(null);
  return { click: () => onWalk(row), pointerenter: point, pointerleave: leave, focus: point, blur: leave };
}

/** @param {PanelContext} context @param {string} title @param {Link} link */
function linkRow(context, title, link) {
  const { graph, notes } = context;
  const name = graph.names[link.row];
  const width = Math.min(100, (100 * Math.abs(link.share)) / SATURATED);
  const button = element(
    `button.link.${link.share < 0 ? "negative" : "positive"}`,
    {
      "data-key": `${title} ${name}`, "data-node": name,
      ...walking(context, link.row),
      style: `--part: ${width.toFixed(1)}%`,
    },
    element("span.share", {}, signed(link.share)),
    element("span.weight", {}, threeDigits(link.weight)),
    element("span.what", {}, symbolOf(graph.kind[link.row]), element("bdi", {}, labelOf(graph, notes, link.row))),
    element("span.where", {}, placeText(graph, link.row)),
  );
  const dimmed = context.heads?.lit && link.edge >= 0 && !context.heads.lit[link.edge];
  return element("li", { class: dimmed ? "dimmed" : null }, button, overButton(context, title, link), pinButton(context, title, link.row), overDetail(context, title, link));
}

/** @param {PanelContext} context @param {string} title @param {number} row */
function pinButton({ graph, notes, onPin }, title, row) {
  const name = graph.names[row];
  const pinned = notes.pins.includes(name);
  return element("button.tool.pin", { click: () => onPin([row]), "data-key": `${title} pin ${name}`, "aria-pressed": String(pinned), title: pinned ? "unpin" : "pin", "aria-label": `${pinned ? "unpin" : "pin"} ${labelOf(graph, notes, row)}` }, pinned ? "●" : "○");
}

/** @param {PanelContext} context @param {string} title @param {number[]} rows */
function pinAllButton({ onPin }, title, rows) {
  return element("button.pin-all", { click: () => onPin(rows), "data-key": `pin all ${title}`, title: "pin all that are listed" }, "Pin all");
}

/** Layer and token of a node. @param {Graph} graph @param {number} row */
function placeText(graph, row) {
  const parts = [];
  if (!isInput(graph, row) && !isTarget(graph, row)) parts.push(`L${graph.layer[row]}`);
  if (graph.pos[row] >= 0) parts.push(`@${graph.pos[row]} ${shortened(tokenAt(graph, graph.pos[row]), 12)}`);
  return parts.join(" ");
}

/** Move through a list, and between lists, by arrow keys. @param {Event} event */
function stepThrough(event) {
  const { key } = /** @type {KeyboardEvent} */ (event);
  const list = /** @type {HTMLElement} */ (event.currentTarget);
  const buttons = [...list.querySelectorAll("button:not(.tool)")].map((one) => /** @type {HTMLElement} */ (one));
  const place = buttons.indexOf(/** @type {any} */ (document.activeElement));
  const lists = [...document.querySelectorAll("section.links ul")];
  const beside = lists[lists.indexOf(list) + (key === "ArrowRight" ? 1 : -1)];
  const wanted =
    key === "ArrowDown" ? buttons[place + 1] : key === "ArrowUp" ? buttons[place - 1] :
    key === "ArrowRight" || key === "ArrowLeft" ? beside?.querySelectorAll("button")[0] : null;
  if (!["ArrowDown", "ArrowUp", "ArrowLeft", "ArrowRight"].includes(key)) return;
  event.preventDefault();
  event.stopPropagation();
  wanted?.focus();
}

/** Orders of the table: what a row is sorted by, and whether the largest comes first. @type {Record<string, {by: (graph: Graph, notes: Notes, row: number) => number | string, falling?: boolean}>} */
const ORDERS = {
  token: { by: (graph, _, row) => graph.pos[row] * 1e6 + graph.layer[row] },
  node: { by: (graph, _, row) => graph.names[row] },
  label: { by: (graph, notes, row) => labelOf(graph, notes, row).toLowerCase() },
  influence: { by: (graph, _, row) => (isTarget(graph, row) ? NaN : graph.influence[row]), falling: true },
  activation: { by: (graph, _, row) => graph.activation[row], falling: true },
};

/** Rows in an order; those without a number come last. @param {Graph} graph @param {Notes} notes @param {number[]} rows @param {string} order */
function inOrder(graph, notes, rows, order) {
  const { by, falling } = ORDERS[order];
  const sign = falling ? -1 : 1;
  const keyed = rows.map((row) => ({ row, key: by(graph, notes, row) }));
  const lacks = (/** @type {number | string} */ key) => Number(Number.isNaN(key));
  keyed.sort((a, b) => lacks(a.key) - lacks(b.key) || sign * Number(a.key > b.key) - sign * Number(a.key < b.key) || a.row - b.row);
  return keyed.map(({ row }) => row);
}

/**
 * Table of all visible nodes, or of all that a search finds, by token or in another order; hidden
 * ones come last.
 * @param {PanelContext} context
 * @param {number[]} rows
 * @param {(row: number) => string} hiddenBy Reason for which a node is hidden.
 * @param {string} order
 * @param {(order: string) => void} onOrder
 * @param {number} most
 * @param {() => void} onMore
 */
function nodeTable({ graph, notes, onWalk, onPoint }, rows, hiddenBy, order, onOrder, most, onMore) {
  const all = inOrder(graph, notes, rows, order);
  const sorted = [...all.filter((row) => !hiddenBy(row)), ...all.filter(hiddenBy)];
  const head = Object.entries(ORDERS).map(([name, { falling }]) =>
    element("th", { scope: "col", "aria-sort": name !== order ? null : falling ? "descending" : "ascending" },
      element("button", { click: () => onOrder(name), "data-key": `order ${name}` }, name)));
  const hidden = rows.filter((row) => hiddenBy(row)).length;
  const lines = sorted.slice(0, most).map((row) =>
    element("tr", { pointerenter: () => onPoint(row), pointerleave: () => onPoint(null) },
      element("td", {}, graph.pos[row] < 0 ? "" : element("bdi", {}, `${graph.pos[row]} ${tokenAt(graph, graph.pos[row])}`)),
      element("th", { scope: "row" }, element("button", { click: () => onWalk(row), "data-key": graph.names[row], "data-node": graph.names[row] }, graph.names[row]), hiddenBy(row) && element("small.quiet", {}, ` ${hiddenBy(row)}`)),
      element("td", {}, element("bdi", {}, labelOf(graph, notes, row))),
      element("td.number", {}, isTarget(graph, row) ? "" : percent(graph.influence[row])),
      element("td.number", {}, threeDigits(graph.activation[row]))));
  return element("div", {},
    element("table.nodes", {}, element("caption", {}, `${counted(rows.length - hidden)} nodes shown${hidden ? `, ${counted(hidden)} more found but hidden: select one to see it` : ""}`), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines)),
    sorted.length > most && element("button.more", { click: onMore, "data-key": "table more" }, `all ${counted(sorted.length)}`));
}
