// @ts-check
// Sides: what is known of the clicked node or box, here and in the graph that is compared.
"use strict";

const NO_PARTNER = { here: "not in this graph", there: "not in the other graph" };
const NOT_SHOWN = { here: "in this graph, but not among the nodes on this page", there: "in the other graph, but not among its nodes on this page" };
const LABEL = "label";
const NO_BOX = -1;

/** Numbers of a node; of two graphs side by side. @param {Viewer} viewer @param {number} row */
function numbersPanel(viewer, row) {
  const { graph, view } = viewer;
  const other = viewer.shown.find((one) => one !== view.active);
  const partner = viewer.pair?.[view.active].partner[row];
  if (partner === undefined || other === undefined) return element("dl", {}, ...numbersOf(graph, row).flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
  const there = viewer.graphs[other];
  const sides = [sideOf(viewer, view.active, row), partner < 0 ? new Map() : sideOf(viewer, other, partner)];
  const absent = lackingThere(viewer, other)?.there;
  return element("div", {},
    absent ? element("p.absent", { role: "status" }, absent) : null,
    sidesTable(graphNames(viewer.graphs), [view.active, other], [...new Set(sides.flatMap((side) => [...side.keys()]))].map((term) => [term, ...sides.map((side) => side.get(term) ?? "–")])),
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

/** The chosen box of a graph's summary: in the other graph its counterpart; NO_BOX without one. @param {Viewer} viewer @param {number} number */
function chosenBox({ pair, view }, number) {
  if (number === view.active || view.box === null) return view.box ?? NO_BOX;
  return pair?.[view.active].counterparts?.[view.box]?.box ?? NO_BOX;
}

/** Whether a box of the other summary is chosen that has no counterpart in this one. @param {Viewer} viewer @param {number} number */
function lacksBox(viewer, number) {
  return viewer.summary(number) !== null && number !== viewer.view.active && viewer.view.box !== null && chosenBox(viewer, number) === NO_BOX;
}

/** Numbers of a box here and of its counterpart; null if one graph is shown. @param {Viewer} viewer @param {number} number */
function boxSides(viewer, number) {
  const { active } = viewer.view;
  const other = viewer.shown.find((one) => one !== active);
  const there = other === undefined ? null : viewer.graphs[other].overview;
  const here = viewer.graphs[active].overview;
  if (other === undefined || !there || !here) return null;
  const found = viewer.pair?.[active].counterparts?.[number] ?? null;
  if (!found) return element("p.absent", { role: "status" }, `No box of ${other + 1}. has the same features or name, or does the same.`);
  const [box, partner] = [here.boxes[number], there.boxes[found.box]];
  const rows = [["name", box.name, partner.name], ["enters", percent(box.arrived), percent(partner.arrived)], ["nodes", counted(box.count), counted(partner.count)]];
  return element("div", {},
    sidesTable(graphNames(viewer.graphs), [active, other], rows),
    box.kind !== "group" ? null : element("p.quiet", {}, found.shared > 0 ? `${percent(found.shared)} of the influence of the two is at nodes of both.` : "Other features; they have the same name or do the same."));
}

/** A table of two graphs. @param {string[]} names @param {[number, number]} shown @param {string[][]} rows What, here, there. */
function sidesTable(names, [here, there], rows) {
  return element("table.sides.measured", {},
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }), element("th.number", { scope: "col", title: names[here] }, "here"), element("th.number", { scope: "col", title: names[there] }, `in ${there + 1}.`))),
    element("tbody", {}, ...rows.map(([term, ...cells]) => element("tr", {}, element("th", { scope: "row" }, term), ...cells.map((cell) => element("td.number", {}, element("bdi", {}, cell)))))));
}
