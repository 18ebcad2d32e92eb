// @ts-check
// Choosing: a box of the summary, or a person's group, and the panel of it.
"use strict";

/** Show what feeds a box and what it feeds. @param {Viewer} viewer @param {number} number @param {number | null} box */
function chooseBox(viewer, number, box) {
  viewer.dispatch({ type: "set", view: { active: number, box, tab: "node" } });
}

/** The chosen box of the summary, or all of them. @param {Viewer} viewer @param {PanelContext} context */
function summaryPanel(viewer, context) {
  const overview = /** @type {Overview} */ (viewer.summary(viewer.view.active));
  const number = viewer.view.box ?? -1;
  const onChoose = (/** @type {number | null} */ box) => chooseBox(viewer, viewer.view.active, box);
  const onPin = (/** @type {Box} */ box) => {
    viewer.dispatch({ type: "group", name: box.name, members: box.rows.map((row) => viewer.graph.names[row]) });
    announce(`${box.name} is now in the subgraph, below the full graph (s).`);
  };
  return !overview.boxes[number] ? boxesPanel(overview, onChoose) : boxPanel(context, overview, number, boxSides(viewer, number), { onChoose, onPin });
}

/** The person's group that is chosen. @param {Viewer} viewer */
function chosenGroup({ notes, view }) {
  return notes.groups.find(({ name }) => name === view.group);
}

/** @param {Viewer} viewer @param {PanelContext} context */
function chosenGroupPanel(viewer, context) {
  const group = /** @type {Group} */ (chosenGroup(viewer));
  const members = memberList(context, group, "", (node) => viewer.dispatch({ type: "leave", node }));
  return groupPanel(context, group, members, { onGroup: (name) => chooseGroup(viewer, name) });
}

/** Show what feeds a group and what it feeds. @param {Viewer} viewer @param {string} name */
function chooseGroup(viewer, name) {
  viewer.dispatch({ type: "clear" });
  viewer.dispatch({ type: "set", view: { group: name, tab: "node" } });
}
