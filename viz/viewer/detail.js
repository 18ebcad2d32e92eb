// @ts-check
// Detail: information about the clicked node, and actions on it.
"use strict";

/**
 * @typedef {object} Actions
 * @property {() => void} pin
 * @property {() => void} hide
 * @property {() => void} pathsFrom
 * @property {() => void} group Show its group.
 * @property {(text: string) => void} label
 * @property {(name: string | null) => void} minus
 */

/**
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {ReturnType<typeof labelSource>} source Origin of its label.
 * @param {View} view
 * @param {number} row
 * @param {Actions} actions
 * @param {HTMLElement} numbers
 * @param {(HTMLElement | null)[]} more What else is known of it, above the feature's description.
 * @returns {HTMLElement}
 */
function nodeDetail(graph, notes, source, view, row, actions, numbers, more) {
  const name = graph.names[row];
  const key = featureKey(name);
  const feature = key ? graph.features[key] : undefined;
  const group = notes.groups.find((one) => one.members.includes(name));
  return element(
    "section.detail", { "aria-label": "the clicked node" },
    element("h2", {}, symbolOf(graph.kind[row]), labelField(graph, notes, source, row, actions)),
    element("p.quiet", {}, name, graph.pos[row] >= 0 && element("span", {}, " at ", element("bdi", {}, `“${tokenAt(graph, graph.pos[row])}”`)), group && element("span", {}, " · in ", element("button.end.grouped", { click: actions.group, "data-key": "its group" }, group.name))),
    numbers,
    element("p.actions", {},
      element("button", { click: actions.pin, "data-key": "pin", "aria-pressed": String(notes.pins.includes(name)), title: "p" }, notes.pins.includes(name) ? "Unpin" : "Pin"),
      element("button", { click: actions.pathsFrom, "data-key": "from", "aria-pressed": String(view.from === name), title: "t" }, "Paths from here"),
      element("button", { click: actions.hide, "data-key": "hide", title: "h" }, notes.hidden.includes(name) ? "Show again" : "Hide"),
      pageLink(graph, name)),
    isTarget(graph, row) ? minusChoice(graph, notes, view, row, actions) : null,
    ...more,
    feature ? featureDetail(feature, graph.activation[row]) : null,
  );
}

/** An editable label; the original label is below an edited one. @param {Graph} graph @param {Notes} notes @param {ReturnType<typeof labelSource>} source @param {number} row @param {Actions} actions */
function labelField(graph, notes, source, row, actions) {
  const shown = labelOf(graph, notes, row);
  const field = element("input", {
    value: shown, "aria-label": "label of this node", "data-key": "label", dir: "auto",
    change: (/** @type {Event} */ event) => {
      const text = /** @type {HTMLInputElement} */ (event.target).value.trim();
      actions.label(text === graph.labels[row] ? "" : text);
    },
    keydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") /** @type {HTMLInputElement} */ (event.target).value = shown;
      if (event.key === "Enter" || event.key === "Escape") /** @type {HTMLElement} */ (event.target).blur();
      event.stopPropagation();
    },
  });
  const original = shown !== graph.labels[row] && element("small.quiet", {}, `in the file: ${graph.labels[row]}`);
  const from = source === "file" && element("small.quiet", {}, "from the annotations in the file");
  const elsewhere = source === "elsewhere" && element("small.quiet", {}, "your label of this feature, from another prompt ",
    element("button", { click: () => actions.label(""), "data-key": "forget", title: "remove this label from all prompts of this dictionary; can be undone" }, "Forget"));
  return element("span.label", {}, field, from, elsewhere, original);
}

/** @param {Graph} graph @param {number} row @returns {[string, string][]} */
function numbersOf(graph, row) {
  /** @type {[string, string][]} */
  const numbers = [];
  if (!isTarget(graph, row)) numbers.push(["influence", percent(graph.influence[row])]);
  if (!Number.isNaN(graph.activation[row])) numbers.push(["activation here", threeDigits(graph.activation[row])]);
  if (!Number.isNaN(graph.value[row])) numbers.push([isTarget(graph, row) ? "logit less mean" : graph.kind[row] === KIND.head ? "writes, of all influence" : "pre-activation", threeDigits(graph.value[row])]);
  if (graph.kind[row] === KIND.feature && !graph.expanded[row]) numbers.push(["inputs", "not computed"]);
  const stays = staysText(graph, row);
  if (stays) numbers.push(["stays in", stays]);
  return numbers;
}

/** @param {Graph} graph @param {string} name */
function pageLink(graph, name) {
  const key = featureKey(name);
  if (!graph.featurePage || !key) return null;
  const [layer, index] = key.split("/");
  const address = graph.featurePage.replace("{layer}", layer).replace("{index}", index);
  return element("a", { href: address, target: "_blank", rel: "noreferrer noopener" }, "Neuronpedia ↗");
}

/** Choice of another prediction to subtract. @param {Graph} graph @param {Notes} notes @param {View} view @param {number} row @param {Actions} actions */
function minusChoice(graph, notes, view, row, actions) {
  const others = graph.names.filter((_, other) => other !== row && isTarget(graph, other));
  if (!others.length) return null;
  const options = others.map((name) =>
    element("option", { value: name, selected: view.minus === name }, labelOf(graph, notes, /** @type {number} */ (graph.place.get(name)))));
  return element("p", {}, element("label", {}, "Contrast with: minus ",
    element("select", { "data-key": "minus", change: (/** @type {Event} */ e) => actions.minus(/** @type {HTMLSelectElement} */ (e.target).value || null) },
      element("option", { value: "" }, "nothing"), ...options)));
}

/** @param {Feature} feature @param {number} activation */
function featureDetail(feature, activation) {
  const tokens = (/** @type {string} */ word, /** @type {string[]} */ list) =>
    list.length > 0 && element("p.tokens", {}, element("span.quiet", {}, word), ...list.map((token) => element("bdi.token", {}, token)));
  return element(
    "div", {},
    feature.label !== "" && element("p.quiet", {}, "stored label: ", element("bdi", {}, feature.label)),
    tokens("promotes at its own layer", feature.said), tokens("promotes", feature.raised), tokens("suppresses", feature.lowered),
    feature.frequency !== null && element("p.quiet", {}, `active on ${percent(feature.frequency)} of tokens`),
    feature.histogram.length > 0 && histogram(feature, activation),
    feature.examples.length > 0 && element("h3", {}, "Examples"),
    ...feature.examples.map((example) => heated(example, feature.largest ?? 1)),
  );
}

/** Histogram of the feature's activations, with its activation here. @param {Feature} feature @param {number} activation */
function histogram({ histogram: counts, largest }, activation) {
  const [width, height] = [220, 36];
  const most = Math.max(...counts.map(Math.log1p), 1e-9);
  const step = width / counts.length;
  const bars = counts.map((count, bin) => {
    const high = (height * Math.log1p(count)) / most;
    return vector("rect", { x: bin * step + 0.5, y: height - high, width: Math.max(1, step - 1), height: high, class: "bar" });
  });
  const here = largest && !Number.isNaN(activation) ? [vector("line", { x1: Math.min(1, activation / largest) * width, x2: Math.min(1, activation / largest) * width, y1: 0, y2: height, class: "here" })] : [];
  const caption = `activations up to ${threeDigits(largest ?? 0)}, logarithmic counts; here ${threeDigits(activation)}`;
  return element("figure.histogram", {}, vector("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": caption }, ...bars, ...here), element("figcaption.quiet", {}, caption));
}

/** A text with tokens coloured by activation. @param {Example} example @param {number} largest */
function heated({ tokens, activations }, largest) {
  const pieces = tokens.map((token, place) => {
    const part = Math.min(1, Math.max(0, activations[place] / largest));
    const text = token.replaceAll("␣", " ");
    return part > 0.005 ? element("mark", { style: `--heat: ${(100 * part).toFixed(0)}%`, title: threeDigits(activations[place]) }, text) : text;
  });
  return element("p.example", { dir: "auto" }, ...pieces);
}
