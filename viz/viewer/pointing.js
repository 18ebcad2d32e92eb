// @ts-check
// Pointing: what is said of the node under the pointer, and where it is marked.
"use strict";

/** Lines of the tooltip of a node. @param {Viewer} viewer @param {number} number @param {number} row */
function tipLines(viewer, number, row) {
  const graph = viewer.graphs[number];
  const notes = viewer.labelled(number);
  if (viewer.raw) {
    return [graph.names[row], ...["arrived", "influence", "before", "seed", "activation", "value", "total"].map((name) => `${name} ${(/** @type {any} */ (graph))[name][row]}`)];
  }
  const links = (/** @type {string} */ word, /** @type {Link[]} */ list) =>
    list.slice(0, 3).map((link) => `${word} ${signed(link.share)} ${shortened(shortLabel(graph, notes, link.row) || graph.names[link.row], 40)}`);
  const numbers = numbersOf(graph, row).map(([term, text]) => `${term} ${text}`).join(" · ");
  const effects = drawnEffects(viewer, number);
  const changed = effects ? beforeAfter(graph, effects, row) : "";
  return [
    shortened(labelOf(graph, notes, row), 120), `${graph.names[row]} ${placeText(graph, row)}`, numbers, changed && `intervention: ${changed}`,
    ...links("from", linksInto(graph, row)), ...links("to", linksFrom(graph, row)),
  ].filter(Boolean);
}

/** Mark the pointed node in lists and boxes. @param {Viewer} viewer */
function markPointed(viewer) {
  for (const old of document.querySelectorAll(".pointed")) old.classList.remove("pointed");
  const { hovered } = viewer;
  if (!hovered || hovered.graph !== viewer.view.active) return;
  const name = CSS.escape(viewer.graph.names[hovered.row]);
  for (const one of document.querySelectorAll(`[data-node="${name}"], [data-key="part ${name}"]`)) one.classList.add("pointed");
}
