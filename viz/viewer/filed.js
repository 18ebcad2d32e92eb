// @ts-check
// Filed: annotations in the file and those stored in the browser; neither is lost silently.
"use strict";

/** @param {Notes} one @param {Notes} other */
function sameNotes(one, other) {
  return NOTE_PARTS.every((part) => !differing(one, other, part));
}

/** Parts of notes, and their names. */
const NOTE_PARTS = /** @type {const} */ (["pins", "labels", "groups", "places", "hidden"]);
const PART_NAMES = { pins: "pin", labels: "label", groups: "group", places: "place", hidden: "hidden node" };

/** Number of entries of a part that differ between two notes, whatever their order. @param {Notes} one @param {Notes} other @param {typeof NOTE_PARTS[number]} part */
function differing(one, other, part) {
  const [here, there] = [one, other].map((notes) => entriesOf(notes, part));
  const names = new Set([...here.keys(), ...there.keys()]);
  return [...names].filter((name) => here.get(name) !== there.get(name)).length;
}

/** Entries of a part of notes, by key. @param {Notes} notes @param {typeof NOTE_PARTS[number]} part @returns {Map<string, string>} */
function entriesOf(notes, part) {
  if (part === "groups") return new Map(notes.groups.map(({ name, members, automatic }) => [name, JSON.stringify([[...members].sort(), Boolean(automatic)])]));
  if (part === "pins" || part === "hidden") return new Map(notes[part].map((name) => [name, "yes"]));
  return new Map(Object.entries(notes[part]).map(([name, value]) => [name, JSON.stringify(value)]));
}

/** Description of the differences between two notes. @param {Notes} one @param {Notes} other */
function differenceText(one, other) {
  const counts = NOTE_PARTS.map((part) => /** @type {const} */ ([PART_NAMES[part], differing(one, other, part)])).filter(([, count]) => count);
  return listed(counts.map(([name, count]) => `${count} ${name}${count > 1 ? "s" : ""}`));
}

/** The annotations in the file. @param {Graph} graph */
function notesInPage(graph) {
  return notesFrom(graph.annotations);
}

/** Whether a person must choose: the file has changed since they last saw it, and differs from their notes. @param {Graph} graph @param {Notes} notes @param {Notes} seen */
function mustChoose(graph, notes, seen) {
  const file = notesInPage(graph);
  return !sameNotes(seen, file) && !sameNotes(notes, file);
}

/**
 * The stored state, updated from the file: if a person had changed nothing, the file's new annotations
 * are shown, and undo restores the old ones.
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

/** Say what could not be stored or restored, and ask which annotations to show, until a person has chosen. @param {Viewer} viewer */
function renderFiled(viewer) {
  const { graphs, state } = viewer;
  const asked = graphs.map((_, number) => number).filter((number) => mustChoose(graphs[number], state.notes[number], state.seen[number]));
  const place = byId("filed");
  place.hidden = !asked.length && !problems.length;
  refill(place, [...problemLines(viewer), ...asked.map((number) => {
    const [graph, mine] = [graphs[number], state.notes[number]];
    const file = notesInPage(graph);
    const choice = (/** @type {string} */ text, /** @type {string} */ title, /** @type {Change} */ change) =>
      element("button", { "data-key": `${text} ${number}`, title, click: () => viewer.dispatch({ ...change, graph: number }) }, text);
    return element("p", {},
      element("span", {}, graphs.length > 1 && element("bdi", {}, `${graph.heading}: `),
        `The annotations in this file have changed since your last visit. Yours are shown; the file's differ in ${differenceText(mine, file)}.`),
      choice("Keep mine", "keep your annotations; “Revert to file” still restores the file's", { type: "keep", file }),
      choice("Take the file's", "undo (u) restores yours", { type: "revert", file }));
  })]);
}
