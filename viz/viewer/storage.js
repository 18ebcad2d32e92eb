// @ts-check
// Storage: the state in the browser and in the address.
"use strict";

const STORED = "What was stored of this page";
const LONGEST_HASH = 8000; // characters that all browsers and most programs accept

/** @param {Graph[]} graphs */
const storageKey = (graphs) => `headwater:${graphs.map((graph) => graph.key).join(":")}`;

/**
 * The stored state, or that of the file, overridden by the state in the address.
 * @param {Graph[]} graphs
 * @returns {State}
 */
function restoredState(graphs) {
  const stored = storedState(graphs);
  const own = stored ? renewed(graphs, keptState(graphs, stored)) : initialState(graphs);
  const mine = storedMine(graphs);
  return withShared({ ...own, mine, past: own.past.map(({ notes }) => ({ notes, mine })) }, sharedState(location.hash));
}

/**
 * A state with a shared one applied; undo restores replaced notes.
 * @param {State} own
 * @param {any} shared
 * @param {string} from Where it was saved.
 * @returns {State}
 */
function withShared(own, shared, from = "The address") {
  if (!shared || typeof shared !== "object") return own;
  const state = joined(own, shared, from);
  const same = JSON.stringify(state.notes) === JSON.stringify(own.notes);
  return same ? { ...state, notes: own.notes } : { ...state, past: [...own.past, { notes: own.notes, mine: own.mine }], future: [] };
}

/**
 * The initial state with saved values; what does not fit is left out, and said.
 * @param {State} initial
 * @param {any} saved
 * @param {string} from Where it was saved.
 * @returns {State}
 */
function joined(initial, saved, from) {
  const view = { ...initial.view };
  const left = [];
  for (const [name, value] of Object.entries(saved?.view ?? {})) {
    if (Object.hasOwn(VIEW_FITS, name) && VIEW_FITS[name](value, initial)) Object.assign(view, { [name]: value });
    else left.push(`“${name}”`);
  }
  if (!view.shown.includes(view.active)) view.active = view.shown[0];
  const notes = initial.notes.map((own, graph) => readNotes(saved?.notes?.[graph]) ?? own);
  if (saved?.notes && initial.notes.some((_, graph) => !readNotes(saved.notes[graph]))) left.push("annotations");
  if (left.length) sayProblem(`${from} holds what this page cannot restore: ${listed(left)}. The rest is restored.`);
  return { ...initial, view, notes };
}

/** The stored state, without updates from the file. @param {Graph[]} graphs @param {any} stored @returns {State} */
function keptState(graphs, stored) {
  return { ...joined(initialState(graphs), stored, STORED), seen: seenIn(graphs, stored) };
}

/** Whether the file's annotations replaced stored ones. @param {Graph[]} graphs */
function isRenewed(graphs) {
  const stored = storedState(graphs);
  const kept = stored && keptState(graphs, stored);
  return kept && renewed(graphs, kept) !== kept;
}

/** A state synchronised with another window: its notes, and whether the file was seen there. @param {Graph[]} graphs @param {State} own @param {any} stored @returns {State} */
function inStep(graphs, own, stored) {
  const seen = seenIn(graphs, stored).map((theirs, graph) => (sameNotes(theirs, notesInPage(graphs[graph])) ? theirs : own.seen[graph]));
  return { ...withShared(own, stored, STORED), seen };
}

/** Annotations of the files when the state was stored; empty if not stored. @param {Graph[]} graphs @param {any} stored */
function seenIn(graphs, stored) {
  return graphs.map((_, graph) => readNotes(stored?.seen?.[graph]) ?? NO_NOTES);
}

/** @param {any} value */
const isText = (value) => typeof value === "string";
/** @param {any} value */
const isPart = (value) => typeof value === "number" && value >= 0 && value <= 1;
/** @param {any} value @param {(one: any) => boolean} fits */
const isList = (value, fits) => Array.isArray(value) && value.every(fits);
/** @param {(value: any) => boolean} fits @returns {(value: any) => boolean} */
const orNull = (fits) => (value) => value === null || fits(value);

/** Validity of each field of a view. @type {Record<string, (value: any, initial: State) => boolean>} */
const VIEW_FITS = {
  shown: (value, { notes }) => isList(value, (one) => Number.isInteger(one) && one in notes) && [1, 2].includes(new Set(value).size) && value.length < 3,
  active: (value, { notes }) => Number.isInteger(value) && value in notes,
  summary: (value) => typeof value === "boolean",
  box: orNull((value) => Number.isInteger(value) && value >= 0),
  group: orNull(isText),
  clicked: (value, { notes }) => isList(value, orNull(isText)) && value.length === notes.length,
  from: orNull(isText),
  minus: orNull(isText),
  nodes: isPart,
  edges: isPart,
  keepErrors: (value) => typeof value === "boolean",
  without: (value) => isList(value, (kind) => KINDS.includes(kind)),
  layers: orNull((value) => isList(value, Number.isFinite) && value.length === 2),
  tokens: orNull((value) => isList(value, Number.isInteger)),
  frequency: orNull((value) => isPart(value) && value > 0),
  search: isText,
  links: (value) => ["either", "inputs", "outputs", "pinned"].includes(value),
  faint: (value) => typeof value === "boolean",
  drawn: orNull(isPart),
  range: orNull((value) => isList(value, Number.isFinite) && value.length === 4 && value[0] < value[1] && value[2] < value[3]),
  heads: (value) => isList(value, (one) => isText(one) && /^\d{1,4}\.\d{1,4}$/.test(one)),
  crossing: isPart,
  head: orNull(isText),
  edge: orNull(isText),
  tab: (value) => isText(value) && Object.hasOwn(TABS, value),
  fields: (value) => isList(value, isText) && value.length === 2,
  colour: (value) => ["difference", "kind"].includes(value),
  theme: (value) => ["auto", "light", "dark"].includes(value),
  side: Number.isFinite,
  below: Number.isFinite,
  hulls: (value) => typeof value === "boolean",
  fit: (value) => typeof value === "boolean",
  unfolded: (value) => isList(value, isText),
};

/** Notes in a value, or null if it is invalid. @param {any} value @returns {Notes | null} */
function readNotes(value) {
  if (!value || typeof value !== "object") return null;
  const notes = notesFrom(value);
  const texts = (/** @type {any} */ list) => isList(list, isText);
  const values = (/** @type {any} */ record) => (record && typeof record === "object" ? Object.values(record) : [null]);
  const sound =
    texts(notes.pins) && texts(notes.hidden) &&
    isList(notes.groups, (group) => isText(group?.name) && texts(group.members)) &&
    values(notes.labels).every(isText) &&
    values(notes.places).every((place) => isList(place, Number.isFinite) && place.length === 2);
  return sound ? notes : null;
}

/** @param {State} state */
function kept(state) {
  return JSON.stringify({ view: state.view, notes: state.notes, seen: state.seen });
}

/** @param {Graph[]} graphs */
function storedState(graphs) {
  return storedValue(storageKey(graphs), STORED);
}

/** @param {Graph[]} graphs @param {State} state */
function store(graphs, state) {
  storeValue(storageKey(graphs), kept(state));
}

/** The state in an address, if there is one. @param {string} hash @returns {any} */
function sharedState(hash) {
  if (!hash.startsWith("#s=")) return null;
  try {
    const base64 = hash.slice(3).replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    sayProblem("The state in this address cannot be read and is left out: copy the whole address, or ask for the annotations as a file.");
    return null;
  }
}

/**
 * Fragment of an address for this state, without initial values.
 * @param {Graph[]} graphs
 * @param {State} state
 * @returns {string | null} Null if it would be too long.
 */
function sharedHash(graphs, state) {
  const initial = initialState(graphs);
  const own = state.notes.map((notes, graph) => adopted(graphs[graph], notes, state.mine));
  const same = (/** @type {any} */ a, /** @type {any} */ b) => JSON.stringify(a) === JSON.stringify(b);
  const named = graphs.length > 1 ? ["shown", "active"] : []; // whatever the receiver has open
  const view = Object.entries(state.view).filter(([name, value]) => named.includes(name) || !same(value, /** @type {any} */ (initial.view)[name]));
  const notes = same(own, initial.notes) ? undefined : own;
  const bytes = new TextEncoder().encode(JSON.stringify({ view: Object.fromEntries(view), notes }));
  const text = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
  const hash = `#s=${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
  return hash.length <= LONGEST_HASH ? hash : null;
}

/**
 * Download a file.
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
