// @ts-check
// Graphs: choice of the graph that is shown, and of one to compare it with.
"use strict";

const ALONE = -1; // no graph to compare with

/** Selects of a page with several graphs. @param {Viewer} viewer */
function renderGraphs(viewer) {
  const { graphs } = viewer;
  const several = graphs.length > 1;
  byId("graphs").hidden = !several;
  byId("heading").classList.toggle("unseen", several); // the select shows the same
  if (!several) return;
  const [first, second = ALONE] = viewer.shown;
  const show = (/** @type {number} */ one, /** @type {number} */ other) =>
    viewer.dispatch({ type: "show", shown: other === ALONE ? [one] : [one, other] });
  const names = graphNames(graphs).map((name, number) => ({ name, number }));
  refill(byId("graphs"), [
    graphSelect("Graph", "graph", names, first, (chosen) => show(chosen, chosen === second ? first : second)),
    graphSelect("compare with", "beside", [{ name: "no other", number: ALONE }, ...names.filter(({ number }) => number !== first)], second, (chosen) => show(first, chosen)),
  ]);
}

/**
 * @param {string} label
 * @param {string} key
 * @param {{name: string, number: number}[]} options
 * @param {number} chosen
 * @param {(chosen: number) => void} choose
 */
function graphSelect(label, key, options, chosen, choose) {
  const change = (/** @type {Event} */ event) => choose(Number(/** @type {HTMLSelectElement} */ (event.target).value));
  return element("div", {},
    element("label", { for: `choose-${key}` }, label),
    element("select", { id: `choose-${key}`, "data-key": key, change },
      ...options.map(({ name, number }) => element("option", { value: number, selected: number === chosen }, name))));
}

/** Names of graphs: their headings, after the models and dictionaries that differ, or else files. @param {Graph[]} graphs */
function graphNames(graphs) {
  const differ = (/** @type {(graph: Graph) => string} */ of) => new Set(graphs.map(of)).size > 1;
  const told = [0, 1].filter((which) => differ(({ origins }) => origins[which]));
  const names = graphs.map(({ heading, origins }) => [told.map((which) => origins[which]).join(" · "), heading].filter(Boolean).join(": "));
  return names.map((name, number) => {
    const file = names.filter((other) => other === name).length > 1 ? graphs[number].file?.graph : null;
    return `${number + 1}. ${file ? `${file}: ` : ""}${name}`;
  });
}
