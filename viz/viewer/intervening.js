// @ts-check
// Intervening: run an intervention by headwater serve, and show its effects.
"use strict";

/**
 * @typedef {{node: string, text: string, value: number | null, measured: number | null, predicted: number | null}} NodeEffect
 * @typedef {{text: string, before: number, after: number, logit: number}} TokenEffect
 * @typedef {{what: string, regime: string, through: number, targets: NodeEffect[], tokens: TokenEffect[], features: NodeEffect[], predicted_with: string, stored: Measured[]}} Effects
 * @typedef {object} Trial An intervention and its result.
 * @property {"set" | "scale" | "add"} kind
 * @property {string} number
 * @property {boolean} together Whether the whole supernode is changed.
 * @property {string} regime
 * @property {number | null} job
 * @property {string} status Progress, or an error.
 * @property {Effects | null} effects
 */

const EVERY = 300; // milliseconds between two polls of a job
const KINDS_OF_EDIT = { set: "set to", scale: "multiply by", add: "add" };
const REGIMES = {
  constrained: "constrained: blocks frozen up to the change",
  frozen: "frozen: everything frozen, direct effects only",
  free: "free: nothing frozen",
};

/** @returns {Trial} */
const noTrial = () => ({ kind: "scale", number: "0", together: false, regime: "constrained", job: null, status: "", effects: null });

/** Whether a node can be changed in the model. @param {Graph} graph @param {number} row */
const isChangeable = (graph, row) => graph.kind[row] === KIND.feature || graph.kind[row] === KIND.error;

/**
 * A form for the clicked node, and what the last intervention did.
 * @param {Viewer} viewer
 * @param {PanelContext} context
 * @param {number} row
 */
function interventionPanel(viewer, context, row) {
  const { trial, graph, notes } = viewer;
  const name = graph.names[row];
  const group = notes.groups.find((one) => one.members.includes(name));
  const choice = (/** @type {string} */ key, /** @type {string} */ name, /** @type {Record<string, string>} */ options, /** @type {string} */ now, /** @type {(option: any) => void} */ take) =>
    element("select", { "aria-label": name, "data-key": `trial ${key}`, change: (/** @type {Event} */ event) => take(/** @type {HTMLSelectElement} */ (event.target).value) },
      ...Object.entries(options).map(([option, text]) => element("option", { value: option, selected: option === now }, text)));
  const form = element("form.trial", { submit: (/** @type {Event} */ event) => {
    event.preventDefault();
    runTrial(viewer, trial.together && group ? `supernode:${group.name}` : name);
  } },
    group && choice("together", "what is changed", { node: "this node", group: `supernode “${group.name}”` }, trial.together ? "group" : "node", (option) => (trial.together = option === "group")),
    choice("kind", "how it is changed", KINDS_OF_EDIT, trial.kind, (option) => (trial.kind = option)),
    element("input", { type: "number", step: "any", required: true, value: trial.number, "aria-label": "by how much", "data-key": "trial number",
      input: (/** @type {Event} */ event) => (trial.number = /** @type {HTMLInputElement} */ (event.target).value) }),
    choice("regime", "what is frozen", REGIMES, trial.regime, (option) => (trial.regime = option)),
    element("button", { "data-key": "trial run", disabled: trial.job !== null }, "Run in the model"),
    trial.job !== null && element("button", { type: "button", "data-key": "trial cancel", click: () => fetch(`/jobs/${trial.job}`, { method: "DELETE" }) }, "Cancel"));
  return element("section", { "aria-label": "intervention" }, element("h3", {}, "Change it in the model"), form,
    element("p.quiet", { role: "status" }, trial.status),
    trial.effects && effectsOf(graph, trial.effects, context));
}

/** @param {Viewer} viewer @param {string} nodes */
async function runTrial(viewer, nodes) {
  const { trial, graph } = viewer;
  const report = (/** @type {string} */ text) => {
    trial.status = text;
    viewer.schedule();
  };
  try {
    const edits = [{ kind: trial.kind, nodes, number: Number(trial.number) }];
    const annotations = JSON.parse(annotationsText(graph, viewer.notes));
    const body = JSON.stringify({ edits, regime: trial.regime, annotations });
    let job = await answered(`${location.pathname}/interventions`, { method: "POST", headers: { "content-type": "application/json" }, body });
    trial.effects = null;
    for (trial.job = job.number; ["waiting", "running"].includes(job.state); job = await answered(`/jobs/${job.number}`)) {
      report(job.state === "running" ? `${job.stage} …` : "queued …");
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
    if (job.state === "done") {
      trial.effects = /** @type {Effects} */ (job.made);
      graph.measured = withStored(graph.measured, trial.effects.stored);
    }
    trial.status = job.error ?? (job.state === "done" ? "Done; saved in the graph's file." : job.state);
  } catch (error) {
    trial.status = error instanceof Error ? error.message : String(error);
  }
  trial.job = null;
  viewer.schedule();
}

/** @param {string} path @param {RequestInit} [asked] */
async function answered(path, asked) {
  const found = await fetch(path, asked).catch(() => null);
  if (!found) throw new Error("The server does not answer.");
  const data = await found.json();
  if (!found.ok) throw new Error(data.error ?? found.statusText);
  return data;
}

/** Measurements with new ones added; those of the same intervention are replaced, as in the file. @param {Measured[]} before @param {Measured[]} now */
function withStored(before, now) {
  const known = new Map([...before, ...now].map((one) => [JSON.stringify([one.what, one.regime, one.target]), one]));
  return [...known.values()];
}

/** @param {Graph} graph @param {Effects} effects @param {PanelContext} context */
function effectsOf(graph, { what, regime, through, targets, tokens, features, predicted_with }, context) {
  const table = (/** @type {string} */ caption, /** @type {string[]} */ heads, /** @type {HTMLElement[]} */ rows) =>
    element("table.measured", {}, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head, place) => element(place ? "th.number" : "th", { scope: "col" }, head)))), element("tbody", {}, ...rows));
  const named = (/** @type {NodeEffect} */ one) => {
    const row = graph.place.get(one.node);
    return row === undefined ? element("bdi", {}, one.text || one.node)
      : element("button", { ...walking(context, row), "data-key": `effect ${one.node}` }, element("bdi", {}, labelOf(graph, context.notes, row)));
  };
  const changed = (/** @type {NodeEffect} */ one) => element("tr", {}, element("th", { scope: "row" }, named(one)), numberCell(one.predicted), numberCell(one.measured));
  return element("div", {},
    element("p", {}, element("bdi", {}, what), `, ${regime}${regime === "constrained" ? `: blocks frozen up to ${through}` : ""}`),
    predicted_with && element("p.quiet", {}, `Predictions: ${predicted_with}.`),
    table("Change of targets", ["output", "predicted", "measured"], targets.map(changed)),
    table("Next token", ["token", "before", "after"], tokens.map((one) => element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, one.text)), element("td.number", {}, percent(one.before)), element("td.number", {}, percent(one.after))))),
    features.length > 0 && table("Features that changed most", ["feature", "predicted", "measured"], features.map(changed)));
}

/** @param {number | null} value Null if unknown. */
function numberCell(value) {
  return element("td.number", {}, value === null ? "–" : threeDigits(value));
}

/** Every intervention that was run on a graph. @param {Graph} graph @param {Notes} notes */
function measuredTable(graph, notes) {
  const compared = graph.measured.filter((one) => one.predicted !== null);
  const most = Math.max(...compared.flatMap(({ predicted, measured }) => [Math.abs(Number(predicted)), Math.abs(measured)]), 1e-12);
  const rows = graph.measured.map(({ what, regime, target, predicted, measured }) => {
    const row = graph.place.get(target);
    return element("tr", {}, element("th", { scope: "row" }, element("bdi", {}, what)), element("td", {}, regime),
      element("td", {}, element("bdi", {}, row === undefined ? target : labelOf(graph, notes, row))),
      numberCell(predicted), numberCell(measured));
  });
  const head = ["intervention", "regime", "target", "predicted", "measured"].map((name) => element("th", { scope: "col" }, name));
  return element("div", {}, compared.length > 0 && agreement(compared, most), element("table.measured", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)));
}
