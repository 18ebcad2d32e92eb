// @ts-check
// Storage: the state in the browser, in the address, and in a file of annotations.
"use strict";

const LONGEST_HASH = 8000; // characters that all browsers and most programs take

/** @param {Graph[]} graphs */
const storageKey = (graphs) => `headwater:${graphs.map((graph) => graph.key).join(":")}`;

/**
 * The state as it was left: what the address says, else the browser, else the file.
 * @param {Graph[]} graphs
 * @returns {State}
 */
function restoredState(graphs) {
  const initial = initialState(graphs);
  const saved = sharedState(location.hash) ?? storedState(graphs);
  return saved ? joined(initial, saved) : initial;
}

/**
 * The initial state with what was saved; anything that does not fit is left out.
 * @param {State} initial
 * @param {any} saved
 * @returns {State}
 */
function joined(initial, saved) {
  const view = { ...initial.view };
  for (const [name, value] of Object.entries(saved.view ?? {})) {
    if (fits(/** @type {any} */ (initial.view)[name], value)) Object.assign(view, { [name]: value });
  }
  if (view.clicked.length !== initial.notes.length) view.clicked = initial.view.clicked;
  if (!(view.active in initial.notes)) view.active = 0;
  const notes = initial.notes.map((own, graph) => readNotes(saved.notes?.[graph]) ?? own);
  return { ...initial, view, notes };
}

/** Whether a value can stand where another stands. @param {any} known @param {any} value */
function fits(known, value) {
  if (known === undefined) return false;
  if (value === null || known === null) return true;
  return typeof known === typeof value && Array.isArray(known) === Array.isArray(value);
}

/** Notes, if these are some. @param {any} value @returns {Notes | null} */
function readNotes(value) {
  if (!value || typeof value !== "object") return null;
  const texts = (/** @type {any} */ list) => Array.isArray(list) && list.every((one) => typeof one === "string");
  const notes = notesFrom(value);
  const sound =
    texts(notes.pins) && texts(notes.hidden) && Array.isArray(notes.groups) &&
    notes.groups.every((group) => typeof group?.name === "string" && texts(group.members)) &&
    Object.values(notes.labels).every((label) => typeof label === "string") &&
    Object.values(notes.places).every((place) => Array.isArray(place) && place.length === 2 && place.every(Number.isFinite));
  return sound ? notes : null;
}

/** @param {State} state */
function kept(state) {
  return JSON.stringify({ view: state.view, notes: state.notes });
}

/** @param {Graph[]} graphs */
function storedState(graphs) {
  try {
    return JSON.parse(localStorage.getItem(storageKey(graphs)) ?? "null");
  } catch {
    return null; // storage is forbidden, or holds something else
  }
}

/** @param {Graph[]} graphs @param {State} state */
function store(graphs, state) {
  try {
    localStorage.setItem(storageKey(graphs), kept(state));
  } catch {
    // Without storage the page works, and forgets.
  }
}

/** @param {Graph[]} graphs */
function forget(graphs) {
  try {
    localStorage.removeItem(storageKey(graphs));
  } catch {
    // There was nothing to forget.
  }
}

/** The state in an address, if there is one. @param {string} hash @returns {any} */
function sharedState(hash) {
  if (!hash.startsWith("#s=")) return null;
  try {
    const base64 = hash.slice(3).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

/**
 * The end of an address that brings this state, without what is as it was at first.
 * @param {Graph[]} graphs
 * @param {State} state
 * @returns {string | null} None if it would be too long.
 */
function sharedHash(graphs, state) {
  const initial = initialState(graphs);
  const same = (/** @type {any} */ a, /** @type {any} */ b) => JSON.stringify(a) === JSON.stringify(b);
  const view = Object.entries(state.view).filter(([name, value]) => !same(value, /** @type {any} */ (initial.view)[name]));
  const notes = same(state.notes, initial.notes) ? undefined : state.notes;
  const bytes = new TextEncoder().encode(JSON.stringify({ view: Object.fromEntries(view), notes }));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  const hash = `#s=${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
  return hash.length <= LONGEST_HASH ? hash : null;
}

/** The text of an annotations file. @param {Notes} notes */
function annotationsText(notes) {
  return `${JSON.stringify({ schema_version: 1, ...notes }, null, 1)}\n`;
}

/**
 * Notes in the text of an annotations file.  Throws an Error that says what is wrong.
 * @param {string} text
 * @returns {Notes}
 */
function notesInFile(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("This file is no JSON: expected annotations that were saved from a page.");
  }
  if (value?.schema_version !== 1) {
    throw new Error("This file has no schema_version 1: expected annotations that were saved from a page.");
  }
  const notes = readNotes(value);
  if (!notes) throw new Error("Pins, labels or groups in this file are not written as annotations are.");
  return notes;
}

/**
 * Give a file to the person.
 * @param {string} name
 * @param {Blob} content
 */
function download(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
