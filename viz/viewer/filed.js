// @ts-check
// Filed: annotations of the file beside those that the browser kept; neither is lost without a word.
"use strict";

/** @param {Notes} one @param {Notes} other */
function sameNotes(one, other) {
  return NOTED.every((part) => !differing(one, other, part));
}

/** Parts of notes, and what one of each is called. */
const NOTED = /** @type {const} */ (["pins", "labels", "groups", "places", "hidden"]);
const CALLED = { pins: "pin", labels: "label", groups: "group", places: "place", hidden: "hidden node" };

/** How much of a part is in one of two notes only, whatever the order in which it was said. @param {Notes} one @param {Notes} other @param {typeof NOTED[number]} part */
function differing(one, other, part) {
  const [here, there] = [one, other].map((notes) => said(notes, part));
  const names = new Set([...here.keys(), ...there.keys()]);
  return [...names].filter((name) => here.get(name) !== there.get(name)).length;
}

/** What a part of notes says, by what it says it of. @param {Notes} notes @param {typeof NOTED[number]} part @returns {Map<string, string>} */
function said(notes, part) {
  if (part === "groups") return new Map(notes.groups.map(({ name, members, automatic }) => [name, JSON.stringify([[...members].sort(), Boolean(automatic)])]));
  if (part === "pins" || part === "hidden") return new Map(notes[part].map((name) => [name, "yes"]));
  return new Map(Object.entries(notes[part]).map(([name, value]) => [name, JSON.stringify(value)]));
}

/** In what two notes differ, in words. @param {Notes} one @param {Notes} other */
function differenceText(one, other) {
  const counts = NOTED.map((part) => /** @type {const} */ ([CALLED[part], differing(one, other, part)])).filter(([, count]) => count);
  return counts.map(([name, count]) => `${count} ${name}${count > 1 ? "s" : ""}`).join(", ").replace(/, ([^,]*)$/, " and $1");
}

/** The annotations in the file. @param {Graph} graph */
function notesInPage(graph) {
  return notesFrom(graph.annotations);
}

/** Whether a person must choose: the file says other than when they last saw it, and other than they do. @param {Graph} graph @param {Notes} notes @param {Notes} seen */
function mustChoose(graph, notes, seen) {
  const file = notesInPage(graph);
  return !sameNotes(seen, file) && !sameNotes(notes, file);
}

/**
 * A state out of the browser, beside the file as it is now: where a person had changed nothing, the
 * file's new annotations are shown, and undoing brings the old ones back.
 * @param {Graph[]} graphs
 * @param {State} state
 * @returns {State}
 */
function renewed(graphs, state) {
  const untouched = (/** @type {Graph} */ graph, /** @type {number} */ number) =>
    sameNotes(state.notes[number], state.seen[number]) && mustChoose(graph, state.notes[number], state.seen[number]);
  if (!graphs.some(untouched)) return state;
  const [notes, seen] = [state.notes, state.seen].map((old) => old.map((one, number) => (untouched(graphs[number], number) ? notesInPage(graphs[number]) : one)));
  return { ...state, notes, seen, past: [...state.past, { notes: state.notes, mine: state.mine }] };
}

/** Ask whose annotations should be shown, until a person has chosen. @param {Viewer} viewer */
function renderFiled(viewer) {
  const { graphs, state } = viewer;
  const asked = graphs.map((_, number) => number).filter((number) => mustChoose(graphs[number], state.notes[number], state.seen[number]));
  const place = byId("filed");
  place.hidden = !asked.length;
  refill(place, asked.map((number) => {
    const [graph, mine] = [graphs[number], state.notes[number]];
    const file = notesInPage(graph);
    const choice = (/** @type {string} */ text, /** @type {string} */ title, /** @type {Change} */ change) =>
      element("button", { "data-key": `${text} ${number}`, title, click: () => viewer.dispatch({ ...change, graph: number }) }, text);
    return element("p", {},
      element("span", {}, graphs.length > 1 && element("bdi", {}, `${graph.heading}: `),
        `The annotations in this file have changed since you were here. Shown are yours; the file's differ in ${differenceText(mine, file)}.`),
      choice("Keep mine", "yours stay as they are, and the file's are a click on “Revert to file” away", { type: "keep", file }),
      choice("Take the file's", "undoing (u) brings yours back", { type: "revert", file }));
  }));
}
