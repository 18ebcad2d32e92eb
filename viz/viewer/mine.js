// @ts-check
// Mine: a person's labels of features of a dictionary, stored in the browser for all prompts.
"use strict";

/** @param {string} dictionary */
const dictionaryKey = (dictionary) => `headwater:dictionary:${dictionary}`;

/** Stored labels of features by LAYER/INDEX; none if they are missing or invalid. @param {string} dictionary @returns {Record<string, string>} */
function storedLabels(dictionary) {
  const stored = storedValue(dictionaryKey(dictionary), "What was stored of your labels of this dictionary");
  return Object.fromEntries(Object.entries(stored ?? {}).filter(([feature, text]) => /^\d+\/\d+$/.test(feature) && isText(text)));
}

/** A person's labels for the dictionaries of these graphs. @param {Graph[]} graphs @returns {Mine} */
function storedMine(graphs) {
  const dictionaries = graphs.map((graph) => graph.dictionary).filter((one) => one !== null);
  return Object.fromEntries(dictionaries.map((dictionary) => [dictionary, storedLabels(dictionary)]));
}

/** Store changed labels without touching those that other pages have stored meanwhile. @param {Mine} before @param {Mine} after */
function keepMine(before, after) {
  for (const [dictionary, labels] of Object.entries(after)) {
    const changes = changedLabels(before[dictionary] ?? {}, labels);
    if (changes.size) storeValue(dictionaryKey(dictionary), JSON.stringify(withChanges(storedLabels(dictionary), changes)));
  }
}

/** Features whose labels differ, with the new labels. @param {Record<string, string>} before @param {Record<string, string>} after @returns {Map<string, string | undefined>} */
function changedLabels(before, after) {
  const features = new Set([...Object.keys(before), ...Object.keys(after)]);
  return new Map([...features].filter((feature) => before[feature] !== after[feature]).map((feature) => [feature, after[feature]]));
}

/** @param {Record<string, string>} labels @param {Map<string, string | undefined>} changes @returns {Record<string, string>} */
function withChanges(labels, changes) {
  const entries = Object.entries({ ...labels, ...Object.fromEntries(changes) });
  return /** @type {Record<string, string>} */ (Object.fromEntries(entries.filter(([, text]) => text !== undefined)));
}

/**
 * The state after another page has labelled features: undo here must not undo those labels.
 * @param {State} state
 * @param {string} dictionary
 * @param {Record<string, string>} labels
 * @returns {State}
 */
function labelledElsewhere(state, dictionary, labels) {
  const changes = changedLabels(state.mine[dictionary] ?? {}, labels);
  /** @template {{mine: Mine}} T @param {T} one @returns {T} */
  const renew = (one) => ({ ...one, mine: { ...one.mine, [dictionary]: withChanges(one.mine[dictionary] ?? {}, changes) } });
  return { ...renew(state), past: state.past.map(renew), future: state.future.map(renew) };
}

/** Notes with a person's labels of the dictionary; labels of this graph take precedence. @param {Graph} graph @param {Notes} notes @param {Mine} mine @returns {Notes} */
function withMine(graph, notes, mine) {
  return { ...notes, labels: { ...mine[graph.dictionary ?? ""], ...notes.labels } };
}

/** Notes of a graph that include a person's labels of the dictionary. @param {Graph} graph @param {Notes} notes @param {Mine} mine @returns {Notes} */
function adopted(graph, notes, mine) {
  const shown = new Set(graph.names.filter((name) => !(name in notes.labels)).map(featureKey));
  const labels = Object.entries(mine[graph.dictionary ?? ""] ?? {}).filter(([feature]) => shown.has(feature) && !(feature in notes.labels));
  return labels.length ? { ...notes, labels: { ...notes.labels, ...Object.fromEntries(labels) } } : notes;
}

/**
 * Origin of a node's label, if it is not a person's own for this graph.
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {Mine} mine
 * @param {string} name
 * @returns {"elsewhere" | "file" | null}
 */
function labelSource(graph, notes, mine, name) {
  const key = labelKey(notes, name);
  if (key in notes.labels) return notesInPage(graph).labels[key] === notes.labels[key] ? "file" : null;
  return mine[graph.dictionary ?? ""]?.[featureKey(name) ?? ""] === undefined ? null : "elsewhere";
}
