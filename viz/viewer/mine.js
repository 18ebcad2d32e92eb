// @ts-check
// Mine: a person's labels of the features of a dictionary, kept in the browser for all its prompts.
"use strict";

/** @param {string} dictionary */
const dictionaryKey = (dictionary) => `headwater:dictionary:${dictionary}`;

/** Labels of features by LAYER/INDEX; none where the browser has none, or something else. @param {string} dictionary @returns {Record<string, string>} */
function storedLabels(dictionary) {
  try {
    const stored = JSON.parse(localStorage.getItem(dictionaryKey(dictionary)) ?? "{}");
    return Object.fromEntries(Object.entries(stored ?? {}).filter(([feature, text]) => /^\d+\/\d+$/.test(feature) && isText(text)));
  } catch {
    return {};
  }
}

/** A person's labels for the dictionaries of these graphs. @param {Graph[]} graphs @returns {Mine} */
function storedMine(graphs) {
  const dictionaries = graphs.map((graph) => graph.dictionary).filter((one) => one !== null);
  return Object.fromEntries(dictionaries.map((dictionary) => [dictionary, storedLabels(dictionary)]));
}

/** Store what has changed, and leave alone what other pages have stored meanwhile. @param {Mine} before @param {Mine} after */
function keepMine(before, after) {
  for (const [dictionary, labels] of Object.entries(after)) {
    const changes = changedLabels(before[dictionary] ?? {}, labels);
    if (!changes.size) continue;
    try {
      localStorage.setItem(dictionaryKey(dictionary), JSON.stringify(withChanges(storedLabels(dictionary), changes)));
    } catch {
      // Without storage the page works, and forgets.
    }
  }
}

/** Features whose labels differ, and what they are after. @param {Record<string, string>} before @param {Record<string, string>} after @returns {Map<string, string | undefined>} */
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
 * The state after another page has labelled features: undoing here must not undo what was done there.
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

/** Notes with a person's labels from elsewhere, which give way to those of this graph. @param {Graph} graph @param {Notes} notes @param {Mine} mine @returns {Notes} */
function withMine(graph, notes, mine) {
  return { ...notes, labels: { ...mine[graph.dictionary ?? ""], ...notes.labels } };
}

/** Notes of a graph that say all that is shown as a person's own. @param {Graph} graph @param {Notes} notes @param {Mine} mine @returns {Notes} */
function adopted(graph, notes, mine) {
  const shown = new Set(graph.names.filter((name) => !(name in notes.labels)).map(featureKey));
  const labels = Object.entries(mine[graph.dictionary ?? ""] ?? {}).filter(([feature]) => shown.has(feature) && !(feature in notes.labels));
  return labels.length ? { ...notes, labels: { ...notes.labels, ...Object.fromEntries(labels) } } : notes;
}

/**
 * Where the label of a node comes from, if it is not a person's own for this graph.
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
