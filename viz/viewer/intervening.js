// @ts-check
// Intervening: run an intervention by headwater serve, and show its effects.
"use strict";

/**
 * @typedef {{node: string, text: string, value: number | null, measured: number | null, predicted: number | null}} NodeEffect
 * @typedef {{token: number, text: string, before: number, after: number, logit: number}} TokenEffect
 * @typedef {{what: string, regime: string, through: number, targets: NodeEffect[], tokens: TokenEffect[], features: NodeEffect[], predicted_with: string, stored: Measured[], meaning: string, only: string, changes_nothing: boolean, unpredicted: string, disagreement: string, continuations: {before: string, after: string} | null, remaining: Record<string, number>}} Effects
 * @typedef {object} Trial An intervention and its result.
 * @property {"set" | "scale" | "add"} kind
 * @property {string} number
 * @property {boolean} together Whether the whole supernode is changed.
 * @property {string} regime
 * @property {number | null} job
 * @property {string} status Progress, or an error.
 * @property {boolean} failed Whether it is an error.
 * @property {Effects | null} effects
 * @property {boolean} drawn Whether they are drawn on the graph.
 * @property {string} generate Number of tokens.
 * @property {HTMLTextAreaElement} words Edits in the words of the command.
 */

const EVERY = 300; // milliseconds between two polls of a job
const KINDS_OF_EDIT = { set: "set to", scale: "multiply by", add: "add" };
const REGIMES = { constrained: "constrained", frozen: "frozen", free: "free" };
const EXAMPLE = "scale concept:Texas=0\nadd feature:3/488@2+=3\nscale head:4.5@is=0\ngenerate 5"; // all at once

/** @returns {Trial} */
const noTrial = () => ({ kind: "scale", number: "0", together: false, regime: "constrained", job: null, status: "", failed: false, effects: null, drawn: true, generate: "0",
  words: /** @type {HTMLTextAreaElement} */ (element("textarea", { rows: 4, required: true, maxlength: 10000, spellcheck: "false", id: "words", "data-key": "trial words", placeholder: EXAMPLE })) });

/** Whether a node can be changed in the model. @param {Graph} graph @param {number} row */
const isChangeable = (graph, row) => graph.kind[row] === KIND.feature || graph.kind[row] === KIND.error;

/**
 * Forms for the clicked node and for edits in words, and what the last intervention did.
 * @param {Viewer} viewer
 * @param {PanelContext} context
 * @param {number | null} row The clicked node, if it can be changed.
 */
function interventionPanel(viewer, context, row) {
  const { trial, graph, regimes } = viewer;
  const busy = trial.job !== null;
  const words = element("form.words", { submit: (/** @type {Event} */ event) => {
    event.preventDefault();
    runTrial(viewer, []);
  } },
    element("label.quiet", { for: "words" }, row === null ? "Edits, one a line, as headwater intervene takes them; all act at once." : "Or several edits, one a line, as headwater intervene takes them; all act at once."),
    trial.words, element("button", { "data-key": "trial run words", disabled: busy }, "Run these edits"));
  return element("section", { "aria-label": "intervention" }, element("h3", {}, "Change it in the model"),
    row === null ? null : nodeForm(viewer, row), words,
    element("p.trial", {}, choiceOf("regime", "what is frozen", REGIMES, trial.regime, (option) => {
      trial.regime = option;
      viewer.schedule();
    }),
    element("label", {}, "generate ", element("input", { type: "number", min: 0, max: 200, step: 1, value: trial.generate, "aria-label": "tokens to generate", "data-key": "trial generate",
      input: (/** @type {Event} */ event) => (trial.generate = /** @type {HTMLInputElement} */ (event.target).value) }), " tokens"),
    busy && element("button", { type: "button", "data-key": "trial cancel", click: () => fetch(`/jobs/${trial.job}`, { method: "DELETE" }) }, "Cancel")),
    trial.effects?.regime === trial.regime ? null : element("p.quiet", {}, `${trial.regime}${trial.regime === "constrained" ? " (blocks up to the highest edit)" : ""}: ${regimes[trial.regime]}.`),
    element(trial.failed ? "p.fails" : "p.quiet", { role: "status" }, trial.status),
    trial.effects && toggle("effects", trial.drawn, "draw this on the graph: each node and box before → after, as a share of what it was", () => ((trial.drawn = !trial.drawn), viewer.schedule())),
    trial.effects && effectsOf(graph, trial.effects, context));
}

/** @param {string} key @param {string} name @param {Record<string, string>} options @param {string} now @param {(option: any) => void} take */
function choiceOf(key, name, options, now, take) {
  return element("select", { "aria-label": name, "data-key": `trial ${key}`, change: (/** @type {Event} */ event) => take(/** @type {HTMLSelectElement} */ (event.target).value) },
    ...Object.entries(options).map(([option, text]) => element("option", { value: option, selected: option === now }, text)));
}

/** @param {Viewer} viewer @param {number} row */
function nodeForm(viewer, row) {
  const { trial, graph, notes } = viewer;
  const name = graph.names[row];
  const group = notes.groups.find((one) => one.members.includes(name));
  const nodes = () => (trial.together && group ? `supernode:${group.name}` : name);
  return element("form.trial", { submit: (/** @type {Event} */ event) => {
    event.preventDefault();
    runTrial(viewer, [{ kind: trial.kind, nodes: nodes(), number: Number(trial.number) }]);
  } },
    group && choiceOf("together", "what is changed", { node: "this node", group: `supernode “${group.name}”` }, trial.together ? "group" : "node", (option) => (trial.together = option === "group")),
    choiceOf("kind", "how it is changed", KINDS_OF_EDIT, trial.kind, (option) => (trial.kind = option)),
    element("input", { type: "number", step: "any", required: true, value: trial.number, "aria-label": "by how much", "data-key": "trial number",
      input: (/** @type {Event} */ event) => (trial.number = /** @type {HTMLInputElement} */ (event.target).value) }),
    element("button", { "data-key": "trial run", disabled: trial.job !== null }, "Run in the model"),
    element("button", { type: "button", "data-key": "trial note", title: "write this edit into the list below", click: () => {
      trial.words.value = `${trial.words.value.trimEnd()}\n${trial.kind} ${nodes().includes(" ") ? `"${nodes()}"` : nodes()}=${trial.number}\n`.trimStart();
    } }, "Add to the list"));
}

/** @param {Viewer} viewer @param {{kind: string, nodes: string, number: number}[]} edits Those in words, if there is none. */
async function runTrial(viewer, edits) {
  const { trial, graph } = viewer;
  const report = (/** @type {string} */ text) => {
    [trial.status, trial.failed] = [text, false];
    viewer.schedule();
  };
  try {
    const annotations = JSON.parse(annotationsText(graph, viewer.notes));
    const words = edits.length ? "" : trial.words.value;
    const body = JSON.stringify({ edits, words, regime: trial.regime, generate: Number(trial.generate), annotations });
    let job = await answered(`${location.pathname}/interventions`, { method: "POST", headers: { "content-type": "application/json" }, body });
    trial.effects = null;
    for (trial.job = job.number; ["waiting", "running"].includes(job.state); job = await answered(`/jobs/${job.number}`)) {
      report(job.state === "running" ? `${job.stage} …` : "queued …");
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
    if (job.state === "done") {
      trial.effects = /** @type {Effects} */ (job.made);
      trial.drawn = true;
      graph.measured = withStored(graph.measured, trial.effects.stored);
    }
    trial.failed = job.error !== null;
    trial.status = job.error ?? (job.state === "done" ? "Done; saved in the graph's file." : job.state);
  } catch (error) {
    [trial.status, trial.failed] = [error instanceof Error ? error.message : String(error), true];
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
