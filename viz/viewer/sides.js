// @ts-check
// Sides: what is known of the clicked node, here and in the graph that is compared.
"use strict";

const NO_PARTNER = { here: "not in this graph", there: "not in the other graph" };
const NOT_SHOWN = { here: "in this graph, but not among the nodes on this page", there: "in the other graph, but not among its nodes on this page" };
const LABEL = "label";

/** Numbers of a node; of two graphs side by side. @param {Viewer} viewer @param {number} row */
function numbersPanel(viewer, row) {
  const { graph, view } = viewer;
  const other = viewer.shown.find((one) => one !== view.active);
  const partner = viewer.pair?.[view.active].partner[row];
  if (partner === undefined || other === undefined) return element("dl", {}, ...numbersOf(graph, row).flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
  const there = viewer.graphs[other];
  const sides = [sideOf(viewer, view.active, row), partner < 0 ? new Map() : sideOf(viewer, other, partner)];
  const absent = lackingThere(viewer, other)?.there;
  const names = graphNames(viewer.graphs);
  return element("div", {},
    absent ? element("p.absent", { role: "status" }, absent) : null,
    element("table.sides.measured", {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }), element("th.number", { scope: "col", title: names[view.active] }, "here"), element("th.number", { scope: "col", title: names[other] }, `in ${other + 1}.`))),
      element("tbody", {}, ...[...new Set(sides.flatMap((side) => [...side.keys()]))].map((term) =>
        element("tr", {}, element("th", { scope: "row" }, term), ...sides.map((side) => element("td.number", {}, element("bdi", {}, side.get(term) ?? "–"))))))),
    partner < 0 || there.names[partner] === graph.names[row] ? null : element("p.quiet", {}, `there: ${there.names[partner]}`));
}

/** Label and numbers of a node by what they are. @param {Viewer} viewer @param {number} number @param {number} row @returns {Map<string, string>} */
function sideOf(viewer, number, row) {
  const graph = viewer.graphs[number];
  const numbers = numbersOf(graph, row).map(([term, text]) => /** @type {const} */ ([term.replace(/ here$/, ""), text]));
  return new Map([[LABEL, labelOf(graph, viewer.labelled(number), row)], ...numbers]);
}

/** Words for a graph in which the clicked node of the other one has no partner; null if it has, or none is clicked. @param {Viewer} viewer @param {number} number */
function lackingThere(viewer, number) {
  const { pair } = viewer;
  const from = viewer.shown.find((one) => one !== number);
  const row = from === undefined ? null : viewer.clicked(from);
  if (!pair || from === undefined || row === null || viewer.clicked(number) !== null) return null;
  const partner = pair[from].partner[row];
  return partner >= 0 ? null : partner === -1 ? NO_PARTNER : NOT_SHOWN;
}
