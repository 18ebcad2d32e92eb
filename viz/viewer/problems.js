// @ts-check
// Problems: what could not be stored or restored, each said once above the graph.
"use strict";

/** Sentences that a person has not dismissed. @type {string[]} */
let problems = [];
const everSaid = new Set(/** @type {string[]} */ ([]));

/** @param {string} sentence */
function sayProblem(sentence) {
  if (everSaid.has(sentence)) return;
  everSaid.add(sentence);
  problems = [...problems, sentence];
}

/** Lines about problems, until they are dismissed. @param {Viewer} viewer */
function problemLines(viewer) {
  return problems.map((sentence) => {
    const dismiss = () => {
      problems = problems.filter((other) => other !== sentence);
      viewer.schedule();
    };
    return element("p.problem", {}, element("span", {}, sentence), element("button", { "data-key": sentence, click: dismiss }, "Dismiss"));
  });
}

/** Names as in "a, b and c". @param {string[]} names */
function listed(names) {
  return names.join(", ").replace(/, ([^,]*)$/, " and $1");
}

/**
 * Write to the browser's storage; that it is full or off is said once.
 * @param {string} key
 * @param {string} value
 */
function storeValue(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch (error) {
    const full = error instanceof DOMException && error.name === "QuotaExceededError";
    sayProblem(`This browser ${full ? "has no room left to store" : "does not store"} your annotations: save them as a file (Save), or they are lost when this page closes.`);
  }
}

/**
 * JSON from the browser's storage; null if there is none, or none that can be read, which is said.
 * @param {string} key
 * @param {string} what
 * @returns {any}
 */
function storedValue(key, what) {
  let text = null;
  try {
    text = localStorage.getItem(key);
  } catch {
    return null; // storage is off, which is said when there is something to store
  }
  try {
    return JSON.parse(text ?? "null");
  } catch {
    sayProblem(`${what} in this browser cannot be read and is left out.`);
    return null;
  }
}
