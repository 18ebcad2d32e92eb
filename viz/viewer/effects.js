// @ts-check
// Effects: what an intervention did, in tables and on the graph, before and after.
"use strict";

const CROSSED = 0.005; // share below which a node counts as set to zero
const TOKEN_OF = /^logit:(\d+)@/;

/** The last intervention, while it is drawn on the graph. @param {Viewer} viewer @param {number} number @returns {Effects | null} */
function drawnEffects({ trial, shown }, number) {
  return trial.drawn && shown.length === 1 && shown[0] === number ? trial.effects : null;
}

/** @type {WeakMap<Effects, Float64Array>} */
const shares = new WeakMap();

/** What is left of each node, 1 where nothing changed; NaN if unknown. @param {Graph} graph @param {Effects} effects */
function sharesLeft(graph, effects) {
  let known = shares.get(effects);
  if (!known) shares.set(effects, known = Float64Array.from(graph.names, (name) => effects.remaining[name] ?? NaN));
  return known;
}

/** Less (-1) or more (1) than before; NaN if unknown. @param {Graph} graph @param {Effects} effects */
function changesOf(graph, effects) {
  return sharesLeft(graph, effects).map((share) => Math.max(-1, Math.min(1, share - 1)));
}

/** A node before and after, in percent: of a token its probability; empty if unknown. @param {Graph} graph @param {Effects} effects @param {number} row */
function beforeAfter(graph, effects, row) {
  const id = Number(TOKEN_OF.exec(graph.names[row])?.[1] ?? NaN);
  const token = effects.tokens.find((one) => one.token === id);
  if (token) return `${Math.round(100 * token.before)} → ${Math.round(100 * token.after)}%`;
  const target = effects.targets.find((one) => one.node === graph.names[row]); // a difference: its value
  if (target) return target.measured !== null && Number(target.value) > 0 ? arrowTo(1 + target.measured / Number(target.value)) : "";
  return arrowTo(sharesLeft(graph, effects)[row]);
}

/** Short text of a node, before and after if there was an intervention. @param {Graph} graph @param {Notes} notes @param {Effects | null} effects @param {number} row */
function changedMark(graph, notes, effects, row) {
  const mark = markText(graph, notes, row);
  const change = effects ? beforeAfter(graph, effects, row) : "";
  if (!change) return mark;
  return `${shortened(isTarget(graph, row) ? mark.replace(/ [\d.<]+%$/, "") : mark, 14)} ${change}`;
}

/** @param {number} share */
function arrowTo(share) {
  if (Number.isNaN(share)) return "";
  const size = Math.round(100 * Math.abs(share));
  return `100 → ${share < 0 && size ? "−" : ""}${size}%`;
}

/** Each box of the summary before and after, its nodes weighted by influence. @param {Graph} graph @param {Overview} overview @param {Effects | null} effects @returns {Left[]} */
function boxesLeft(graph, overview, effects) {
  if (!effects) return [];
  const left = sharesLeft(graph, effects);
  return overview.boxes.map(({ rows, kind }) => {
    if (kind === "target") return { text: rows.length === 1 ? beforeAfter(graph, effects, rows[0]) : "", crossed: false };
    const known = rows.filter((row) => !Number.isNaN(left[row]));
    const all = known.reduce((sum, row) => sum + graph.arrived[row], 0);
    const share = all > 0 ? known.reduce((sum, row) => sum + graph.arrived[row] * left[row], 0) / all : NaN;
    return { text: kind === "more" ? "" : arrowTo(share), crossed: Math.abs(share) < CROSSED };
  });
}

/** @param {Graph} graph @param {Effects} effects @param {PanelContext} context */
function effectsOf(graph, effects, context) {
  const { what, regime, through, targets, tokens, features, meaning, predicted_with: basis, only, changes_nothing: same, unpredicted, disagreement, continuations } = effects;
  const table = (/** @type {string} */ caption, /** @type {string[]} */ heads, /** @type {HTMLElement[]} */ rows) =>
    element("table.measured", {}, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head, place) => element(place ? "th.number" : "th", { scope: "col" }, head)))), element("tbody", {}, ...rows));
  const named = (/** @type {NodeEffect} */ one) => {
    const row = graph.place.get(one.node);
    return row === undefined ? element("bdi", {}, one.text || one.node)
      : element("button", { ...walking(context, row), "data-key": `effect ${one.node}` }, element("bdi", {}, labelOf(graph, context.notes, row)));
  };
  const changed = (/** @type {NodeEffect} */ one) => element("tr", {}, element("th", { scope: "row" }, named(one)), numberCell(one.predicted), numberCell(one.measured));
  return element("div", {},
    element("p", {}, element("bdi", {}, what), `, ${regime}${regime === "constrained" ? `: blocks frozen up to ${through}` : ""}`),
    element("p.quiet", {}, `${regime}: ${meaning}`),
    same && element("p.fails", {}, "This changes nothing: all is set to what it is."),
    only && element("p.quiet", {}, `Only ${only} change, and what follows from that.`),
    basis && !unpredicted && element("p.quiet", {}, `Predictions: ${basis}.`),
    unpredicted && element("p.quiet", {}, `No prediction: ${unpredicted}.`),
    disagreement && element("p.fails.disagreement", {}, disagreement),
    table("Change of targets", ["output", "predicted", "measured"], targets.map(changed)),
    table("Next token", ["token", "before", "after", "logit"], tokens.map((one) => element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, one.text)), element("td.number", {}, percent(one.before)), element("td.number", {}, percent(one.after)), element("td.number", {}, plus(one.logit))))),
    continuations && element("table.measured.continuations", {}, element("caption", {}, "Continuations"),
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "before"), element("th", { scope: "col" }, "after"))),
      element("tbody", {}, element("tr", {}, ...[continuations.before, continuations.after].map((text) => element("td", {}, element("bdi", {}, text)))))),
    features.length > 0 && table("Features that changed most", ["feature", "predicted", "measured"], [...features].sort((one, other) => Math.abs(other.measured ?? 0) - Math.abs(one.measured ?? 0)).map(changed)));
}
