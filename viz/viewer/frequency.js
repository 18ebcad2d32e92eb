// @ts-check
// Frequency: a logarithmic slider that hides features which are active on too many tokens.
"use strict";

const RAREST = -5; // the slider's left end: one token in 100,000

/** Frequency at a value of the slider; null, which hides nothing, at its right end. @param {number} decades */
function frequencyAt(decades) {
  return decades >= 0 ? null : Number((10 ** Math.max(RAREST, decades)).toPrecision(6));
}

/** @param {number | null} frequency */
const decadesOf = (frequency) => (frequency === null ? 0 : Math.max(RAREST, Math.log10(frequency)));

/** @param {Graph} graph */
const knowsFrequencies = (graph) => graph.frequency.some((frequency) => !Number.isNaN(frequency));

/** @param {Viewer} viewer @param {HTMLElement} place @param {(change: Partial<View>) => void} set */
function renderFrequency(viewer, place, set) {
  const { view, graph } = viewer;
  const known = viewer.remembered("knows frequencies", [view.active], () => viewer.shown.some((one) => knowsFrequencies(viewer.graphs[one])));
  let label = /** @type {HTMLElement | null} */ (place.querySelector(".slider"));
  if (!known) return label?.remove();
  const what = "hide features that are active on a larger share of tokens (feature density); features of unknown density stay";
  label ??= place.insertBefore(element("label.slider", { title: what }, "frequency ",
    element("input", {
      type: "range", min: RAREST, max: 0, step: 0.05, "data-key": "slider frequency", "aria-label": what,
      input: (/** @type {Event} */ event) => set({ frequency: frequencyAt(Number(/** @type {HTMLInputElement} */ (event.target).value)) }),
    }),
    element("output", {})), place.querySelector("[data-key=reset]"));
  const [input, output] = /** @type {[HTMLInputElement, HTMLElement]} */ ([...label.children]);
  const { node } = viewer.pruning(view.active).kept;
  const hidden = graph.names.reduce((sum, _, n) => sum + Number(node[n] && isTooFrequent(graph, view, n)), 0);
  const text = view.frequency === null ? "any" : `≤ ${threeDigits(100 * view.frequency)}%, ${counted(hidden)} hidden`;
  if (Math.abs(Number(input.value) - decadesOf(view.frequency)) > 0.03) input.value = String(decadesOf(view.frequency));
  input.setAttribute("aria-valuetext", text);
  output.textContent = text;
}
