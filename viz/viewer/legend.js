// @ts-check
// Legend: what shapes, colours, widths and dashes of a graph mean, and how many of its edges are drawn.
// It has a place of its own beside the graph, on the screen and in drawings, and so covers no node.
"use strict";

/**
 * @typedef {{text: string, kind?: number, lines?: Line[]}} Entry A kind of nodes, lines, or text alone.
 * @typedef {{color: "positive" | "negative" | "grey" | "less" | "same" | "more", width: number, dash?: number[]}} Line
 */

const ENTRY = { size: 11, high: 18, symbol: 16, line: 26, gap: 14 }; // pixels
const STRONGEST = 3.2;
const CHANGES = /** @type {const} */ ([["0% of what it was", "less"], ["unchanged", "same"], ["200% and more", "more"]]);
const DIFFERENCES = /** @type {const} */ ([["less influence here", "less"], ["the same", "same"], ["more here", "more"]]);

/** Kinds of nodes that a graph has. @param {Graph} graph */
function kindsIn(graph) {
  return KINDS.map((_, kind) => kind).filter((kind) => graph.kind.includes(kind));
}

/** What lines mean, and the colours of differences. @param {Viewer} viewer @param {number} number @returns {Entry[]} */
function lineEntries(viewer, number) {
  const graph = viewer.graphs[number];
  const clicked = viewer.clicked(number) !== null;
  const effects = drawnEffects(viewer, number) && !clicked;
  const compared = viewer.pair && viewer.view.colour === "difference" && !clicked;
  return [
    ...(effects ? CHANGES.map(([text, color]) => ({ text, lines: [{ color, width: 10 }] })) : []),
    ...(compared ? DIFFERENCES.map(([text, color]) => ({ text, lines: [{ color, width: 10 }] })) : []),
    { text: "raises", lines: [{ color: "positive", width: STRONGEST }] },
    { text: "lowers", lines: [{ color: "negative", width: STRONGEST }] },
    { text: clicked ? "share of the inputs" : "influence", lines: [0.8, 1.8, STRONGEST].map((width) => ({ color: /** @type {const} */ ("grey"), width })) },
    ...(graph.attention?.effects ? [{ text: "makes a head look", lines: [{ color: /** @type {const} */ ("grey"), width: 1.5, dash: DASH }] }] : []),
  ];
}

/** @param {Viewer} viewer */
function renderLegend(viewer) {
  const { view, graph } = viewer;
  const set = (/** @type {Partial<View>} */ change) => viewer.dispatch({ type: "set", view: change });
  const place = byId("legend");
  if (!place.childElementCount) place.append(...["kinds", "lines", "budget"].map((name) => element(`div.${name}`, {})));
  const [kinds, lines, budget] = /** @type {HTMLElement[]} */ ([...place.children]);
  refill(kinds, kindsIn(graph).map((number) => {
    const kind = KINDS[number];
    return element("button.kind", { "data-key": `kind ${kind}`, "aria-pressed": String(!view.without.includes(kind)), title: `show or hide, kind of node: ${kind}`, click: () => viewer.dispatch({ type: "kind", kind }) }, symbolOf(number), kind);
  }));
  refill(lines, lineEntries(viewer, view.active).map(({ text, lines: drawn }) => element("span.entry", {}, lineSymbol(drawn ?? []), text)));
  if (!budget.childElementCount) {
    budget.append(
      element("button.toggle", { "data-key": "toggle edges", title: "draw edges also while no node is clicked (e)", click: () => set({ faint: !viewer.view.faint }) }, "edges"),
      element("input", { type: "range", min: 0, max: 1, step: 0.01, "data-key": "slider drawn", "aria-label": "share of the influence along edges that those drawn hold", title: "draw fewer or more edges (, and .)", input: (/** @type {Event} */ event) => set({ drawn: Number(/** @type {HTMLInputElement} */ (event.target).value) }) }),
      element("span.quiet", { role: "status" }));
  }
  const [toggled, slider, text] = budget.children;
  toggled.setAttribute("aria-pressed", String(view.faint));
  fillBudget(viewer, /** @type {HTMLInputElement} */ (slider), /** @type {HTMLElement} */ (text));
}

/** @param {Viewer} viewer @param {HTMLInputElement} slider @param {HTMLElement} text */
function fillBudget(viewer, slider, text) {
  const budget = viewer.budget(viewer.view.active);
  slider.disabled = !viewer.view.faint;
  if (Math.abs(Number(slider.value) - budget.held) > 0.005 || viewer.view.drawn === null) slider.value = String(budget.held);
  slider.setAttribute("aria-valuetext", percent(budget.held));
  text.textContent = budgetText(budget, viewer.view.faint);
}

/** @param {Line[]} lines */
function lineSymbol(lines) {
  const drawn = lines.map(({ color, width, dash }, i) =>
    vector("path", { d: lineIn(lines.length, i), class: color, "stroke-width": width, ...(dash ? { "stroke-dasharray": dash.join(" ") } : {}) }));
  return vector("svg", { viewBox: `0 0 ${ENTRY.line} 12`, class: "lines", "aria-hidden": "true" }, ...drawn);
}

/** The i-th of several lines below each other. @param {number} count @param {number} i @param {number} x @param {number} y Middle of them. */
function lineIn(count, i, x = 0, y = 6) {
  const down = y + (i - (count - 1) / 2) * 4;
  return `M${x} ${down}H${x + ENTRY.line}`;
}

/**
 * Entries of a drawing's legend, in lines of this width, with their places.
 * @param {Entry[]} entries
 * @param {number} width
 */
function placedEntries(entries, width) {
  let [x, y] = [0, 0];
  const placed = entries.map((entry) => {
    const before = entry.lines ? ENTRY.line + 4 : entry.kind === undefined ? 0 : ENTRY.symbol;
    const wide = before + widthOf(entry.text, ENTRY.size);
    if (x && x + wide > width) [x, y] = [0, y + ENTRY.high];
    const at = { entry, x, y, before };
    x += wide + ENTRY.gap;
    return at;
  });
  return { placed, height: y + ENTRY.high };
}

/** All entries of a drawing of a graph. @param {Viewer} viewer @param {number} number @returns {Entry[]} */
function drawnEntries(viewer, number) {
  const graph = viewer.graphs[number];
  const text = budgetText(viewer.budget(number), viewer.view.faint);
  return [...kindsIn(graph).map((kind) => ({ kind, text: KINDS[kind] })), ...lineEntries(viewer, number), { text }];
}

/** @param {Pen} pen @param {Palette} palette @param {ReturnType<typeof placedEntries>["placed"]} placed @param {number} left @param {number} top */
function drawLegend(pen, palette, placed, left, top) {
  for (const { entry, x, y, before } of placed) {
    const [across, down] = [left + x, top + y];
    if (entry.kind !== undefined) {
      const { fill, outline } = kindColours(palette, entry.kind, 1);
      pen.marker(entry.kind, across + 6, down + ENTRY.high / 2, 5, fill, outline, 1.2);
    }
    entry.lines?.forEach(({ color, width, dash }, i) =>
      pen.line(lineIn(entry.lines?.length ?? 1, i, across, down + ENTRY.high / 2), { color: palette[color], width, dash }));
    pen.text(entry.text, across + before, down + ENTRY.high / 2, { color: palette.ink, size: ENTRY.size });
  }
}
