// @ts-check
// Looks: where a head looks from a token, and why.
"use strict";

const WRITTEN_OUT = 0.005; // attention above which the number stands under the token
const HOT = 0.4; // above which the heat is bright

/** A token and its position. @param {Graph} graph @param {number} pos */
function tokenPlace(graph, pos) {
  return element("span", {}, element("bdi", {}, `“${tokenAt(graph, pos)}”`), ` @${pos}`);
}

/** The look of a head at a position; a sentence if it is not kept. @param {PanelContext} context @param {string} name */
function lookPanel(context, name) {
  const { graph } = context;
  const place = headPlace(name);
  const look = lookOf(graph, name);
  if (!place) return null;
  if (!look) {
    const count = Math.min(1000, Math.max(24, graph.attention?.looks.length ?? 0) * 4);
    const command = hasHeadNodes(graph) ? "headwater trace … --attention edges" : `headwater attention heads GRAPH --looks ${count} --out FILE --html PAGE`;
    return element("p", {}, `The pattern of head ${place.head} from `, tokenPlace(graph, place.pos), ` is not kept in this graph${hasHeadNodes(graph) ? " of head nodes" : ""}. This keeps more: `, element("code", {}, command));
  }
  const what = look.difference === null ? "score" : "difference";
  const most = Math.max(...[...look.atQuery, ...look.atKeys].map(([, , part]) => Math.abs(part)), 1e-9);
  return element("div.look", {},
    element("h3", {}, "Attention from ", tokenPlace(graph, look.query)),
    patternOf(context, look),
    element("p", {}, "It carries most from ", tokenPlace(graph, look.key), `: ${percent(look.attention[look.key])} of its attention, score ${plus(look.score)}`,
      look.difference === null ? "; no other key competes" : `, ${plus(look.difference)} above the mean of the keys that compete`,
      look.logOdds === null ? "" : `, log odds ${plus(look.logOdds)}`),
    partList(context, "At the query", look.query, look.atQuery, what, most),
    partList(context, "At the keys", null, look.atKeys, what, most),
    look.pairs.length > 0 && pairList(context, look));
}

/** A signed number; a tiny one is 0. @param {number} value */
function plus(value) {
  return Math.abs(value) < 5e-4 ? "0" : `${value < 0 ? "" : "+"}${threeDigits(value)}`;
}

/** The pattern over the prompt as heat; one token is reached by Tab, the others by arrows. @param {PanelContext} context @param {Look} look */
function patternOf({ graph, onPoint }, look) {
  const chips = look.attention.map((attention, pos) => {
    const row = graph.names.findIndex((_, n) => isInput(graph, n) && graph.pos[n] === pos);
    const point = () => row >= 0 && onPoint(row);
    return element(`span.heat${pos === look.key ? ".key" : ""}${attention > HOT ? ".hot" : ""}`, {
      style: `--heat: ${(100 * attention).toFixed(0)}%`, role: "img", tabindex: pos === look.key ? "0" : "-1", "data-key": `heat ${pos}`,
      title: `${percent(attention)} at position ${pos}`, "aria-label": `${tokenAt(graph, pos)} at ${pos}: ${percent(attention)} of the attention${pos === look.key ? ", carries most" : ""}`,
      pointerenter: point, pointerleave: () => onPoint(null), focus: point, blur: () => onPoint(null),
    }, element("bdi", {}, tokenAt(graph, pos)), element("small", {}, attention > WRITTEN_OUT ? `${Math.round(100 * attention)}%` : ""));
  });
  return element("div.pattern", { role: "group", "aria-label": "attention to each token; arrow keys move", keydown: stepAlong }, ...chips);
}

/** Move along the tokens of a pattern by arrow keys. @param {Event} event */
function stepAlong(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[/** @type {KeyboardEvent} */ (event).key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  const chips = [.../** @type {HTMLElement} */ (event.currentTarget).children];
  const next = /** @type {HTMLElement | undefined} */ (chips[chips.indexOf(/** @type {Element} */ (document.activeElement)) + step]);
  next?.focus();
}

/**
 * What at one side speaks for the key, and what against it.
 * @param {PanelContext} context
 * @param {string} title
 * @param {number | null} pos
 * @param {LookPart[]} parts
 * @param {string} what
 * @param {number} most
 */
function partList(context, title, pos, parts, what, most) {
  const rows = parts.map(([name, label, part, running]) => {
    const width = `--part: ${((100 * Math.abs(part)) / most).toFixed(1)}%`;
    const cells = [element("span.share", {}, plus(part)), element("span.weight", {}, plus(running)), ...componentCells(context, name, label)];
    return element("li", {}, componentButton(context, `${title} ${name}`, name, `link.${part < 0 ? "negative" : "positive"}`, width, cells));
  });
  return element("section.links", { "aria-label": title },
    element("h3", {}, title, pos !== null && " ", pos !== null && tokenPlace(context.graph, pos)),
    element("div.heads", { "aria-hidden": "true", title: `part of the ${what} with norms held; the change if it is removed and this layer's norms run` },
      element("span", {}, what), element("span", {}, "norms run"), element("span", {}, "component")),
    element("ul", { keydown: stepThrough }, ...rows));
}

/** Symbol, label and place of a component; null is what is there whatever the prompt says. @param {PanelContext} context @param {string | null} name @param {string} label */
function componentCells({ graph, notes }, name, label) {
  const row = name === null ? undefined : graph.place.get(name);
  if (row !== undefined) return [element("span.what", {}, symbolOf(graph.kind[row]), element("bdi", {}, labelOf(graph, notes, row))), element("span.where", {}, placeText(graph, row))];
  if (name === null) return [element("span.what", {}, "context"), element("span.where", { title: "prefix, biases and constants" }, "constants")];
  const kind = KINDS.indexOf(name.split(":")[0]);
  return [element("span.what", { title: `${name} ${label}` }, symbolOf(kind), element("bdi", {}, label || name)), element("span.where", {}, `${placeOfName(graph, name)} · not in graph`.replace(/^ · /, ""))];
}

/** Layer and position in a name. @param {Graph} graph @param {string} name */
function placeOfName(graph, name) {
  const found = /^\w+:(?:(\d+)(?:\/\d+)?)?.*@(\d+)$/.exec(name);
  if (!found) return "";
  return name.startsWith("token:") ? `@${found[2]}` : `L${found[1]} @${found[2]}`;
}

/** A button that selects a node; plain text if the graph does not have it. @param {PanelContext} context @param {string} key @param {string | null} name @param {string} classes @param {string} style @param {Node[]} cells */
function componentButton(context, key, name, classes, style, cells) {
  const row = name === null ? undefined : context.graph.place.get(name);
  if (row === undefined) return element(`div.${classes}`, { style }, ...cells);
  return element(`button.${classes}`, { "data-key": key, "data-node": name, style, ...walking(context, row) }, ...cells);
}

/** What a component at the query and one at the key do together. @param {PanelContext} context @param {Look} look */
function pairList(context, { pairs, pairsShare }) {
  const end = (/** @type {number} */ number, /** @type {string | null} */ name, /** @type {string} */ label) => {
    const cells = componentCells(context, name, label);
    return componentButton(context, `pair ${number} ${name}`, name, "end", "", [cells[0]]);
  };
  const rows = pairs.map(([query, queryLabel, key, keyLabel, part], number) =>
    element("li.pair", {}, element("span.share", { class: part < 0 ? "negative" : "positive" }, plus(part)), end(2 * number, query, queryLabel), element("span.quiet", {}, "×"), end(2 * number + 1, key, keyLabel)));
  return element("section", { "aria-label": "pairs" }, element("h3", {}, "Pairs of the score"),
    element("p.quiet", {}, `query × key${pairsShare === null ? "" : `; these are ${percent(pairsShare)} of the sizes of all pairs`}`),
    element("ul", {}, ...rows));
}
