// @ts-check
// Controls: tool buttons, sliders, kinds and filters.
"use strict";

/** @param {Viewer} viewer */
function renderTools(viewer) {
  const { state } = viewer;
  const file = notesInPage(viewer.graph);
  const tool = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ click, disabled = false) =>
    element("button", { click, title, "aria-label": title, "data-key": text, disabled }, text);
  refill(byId("tools"), [
    tool("↶", "undo (u)", () => viewer.dispatch({ type: "undo" }), !state.past.length),
    tool("↷", "redo (r)", () => viewer.dispatch({ type: "redo" }), !state.future.length),
    tool("Save", "save annotations as a file", () => saveAnnotations(viewer)),
    tool("Load", "load annotations from a file", () => byId("file").click()),
    tool("Revert to file", "back to the annotations in this file; can be undone", () => viewer.dispatch({ type: "revert", file }), sameNotes(viewer.notes, file)),
    tool("Link", "put this state into the address and copy it", () => shareLink(viewer)),
    tool("PNG", "save the graph as a picture", () => savePicture(viewer, "graph", "png")),
    tool("SVG", "save the graph as a drawing", () => savePicture(viewer, "graph", "svg")),
    tool("◐", "light or dark (d)", () => switchTheme(viewer)),
    tool("Full", "full screen", () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen())),
    tool("Words", "what scores and shares are (w)", showWords),
    tool("?", "keys (?)", showHelp),
  ]);
}

/** @param {Viewer} viewer */
function renderControls(viewer) {
  const { view, graph } = viewer;
  const set = (/** @type {Partial<View>} */ change) => viewer.dispatch({ type: "set", view: change });
  const slider = (/** @type {"nodes" | "edges"} */ name, /** @type {string} */ what) =>
    element("label.slider", { title: what }, `${name} `,
      element("input", {
        type: "range", min: 0, max: 1, step: 0.005, value: view[name], "data-key": `slider ${name}`, "aria-label": what,
        "aria-valuetext": percent(view[name]), input: (/** @type {Event} */ event) => set({ [name]: Number(/** @type {HTMLInputElement} */ (event.target).value) }),
      }),
      element("output", {}, percent(view[name])));
  const place = byId("controls");
  if (!place.childElementCount) place.append(...["depth", "sliders", "looks", "filters"].map((name) => element(`div.${name}`, {})));
  const [depth, sliders, looks, filters] = /** @type {HTMLElement[]} */ ([...place.children]);
  refill(depth, graph.overview ? [
    choice("Summary", view.summary, "few boxes and what flows between them (s)", () => set({ summary: true })),
    choice("Full graph", !view.summary, "all nodes by layer and token (s)", () => set({ summary: false })),
  ] : []);
  fillSliders(sliders, slider, view);
  renderLeft(viewer, sliders);
  refill(looks, [
    namedGroups(graph, viewer.notes).length > 0 && toggle("groups", view.hulls, "outline and name groups", () => set({ hulls: !view.hulls })),
    toggle("keep errors", view.keepErrors, "never prune error nodes", () => set({ keepErrors: !view.keepErrors })),
    viewer.notes.hidden.length > 0 && element("button", { "data-key": "show hidden", click: () => viewer.dispatch({ type: "showAll" }) }, `show ${viewer.notes.hidden.length} hidden`),
    viewer.pair && toggle("differences", view.colour === "difference", "colour by difference in influence", () => set({ colour: view.colour === "difference" ? "kind" : "difference" })),
    graph.stability && stabilityLegend(graph.stability),
  ]);
  renderFilters(viewer, filters, set);
  renderFrequency(viewer, filters, set);
  renderCrossing(viewer, filters, set);
}

/** One of several ways to see the graph. @param {string} text @param {boolean} chosen @param {string} title @param {() => void} click */
function choice(text, chosen, title, click) {
  return element("button.toggle", { "aria-pressed": String(chosen), title, click, "data-key": text }, text);
}

/** How the classes of stability look. @param {Stability} stability */
function stabilityLegend({ classes, varied }) {
  const title = `over ${varied.join(", ")}: share of the influence at features, errors and biases`;
  const entries = classes.map(({ name, nodes, node_influence: share }) =>
    element(`span.stays-${name}`, {}, symbolOf(KIND.feature), `${name} ${percent(share)}`, element("small.quiet", {}, ` ${counted(nodes)} node${nodes === 1 ? "" : "s"}`)));
  return element("span.stability", { title, role: "group", "aria-label": `stability ${title}` }, ...entries);
}

/** Update sliders in place, so that they can be dragged while the page redraws. @param {HTMLElement} place @param {(name: any, what: string) => HTMLElement} slider @param {View} view */
function fillSliders(place, slider, view) {
  if (!place.childElementCount) {
    place.append(slider("nodes", "share of influence kept in nodes"), slider("edges", "share of edge scores kept in edges"));
  }
  for (const name of /** @type {("nodes" | "edges")[]} */ (["nodes", "edges"])) {
    const input = /** @type {HTMLInputElement} */ (place.querySelector(`[data-key="slider ${name}"]`));
    if (Number(input.value) !== view[name]) input.value = String(view[name]);
    input.setAttribute("aria-valuetext", percent(view[name]));
    /** @type {HTMLElement} */ (input.nextElementSibling).textContent = percent(view[name]);
  }
}

/** The graph's own scores, then what pruning leaves of it, and of the page's part if that differs. @param {Viewer} viewer @param {HTMLElement} place */
function renderLeft(viewer, place) {
  const { view, graph } = viewer;
  const left = place.querySelector(".left") ?? place.appendChild(element("span.left", { role: "status" }));
  const here = leftOf(viewer, view.active);
  const exact = isExact(graph, view);
  const whole = exact ? null : wholeAt(graph, view);
  left.replaceChildren(...[
    element("b.own", { title: "scores of the graph in the file" }, scoresText(graph.scores)),
    whole && element("span.whole", {}, `pruned, of the whole graph at nodes ${percent(whole.nodes)}, edges ${percent(whole.edges)}: ${leftText(whole.nNodes, whole.nEdges, whole.scores)}`),
    element("span.here", {}, exact ? `pruned: ${here}` : `pruned, of the part in this page: ${here}`),
  ].filter((one) => one !== null));
}

/** Text about what pruning leaves of a graph in the page. @param {Viewer} viewer @param {number} number */
function leftOf(viewer, number) {
  const { kept, scores } = viewer.pruning(number);
  return leftText(kept.nNodes, kept.nEdges, scores);
}

/** @param {Scores} scores */
function scoresText({ replacement, completeness }) {
  return `replacement ${percent(replacement)} · completeness ${percent(completeness)}`;
}

/** @param {number} nNodes @param {number} nEdges @param {Scores} scores */
function leftText(nNodes, nEdges, scores) {
  return `${counted(nNodes)} nodes, ${counted(nEdges)} edges · ${scoresText(scores)}`;
}

/** @param {string} text @param {boolean} on @param {string} title @param {() => void} click */
function toggle(text, on, title, click) {
  return element("button.toggle", { "aria-pressed": String(on), title, click, "data-key": `toggle ${text}` }, text);
}

/** @param {Viewer} viewer @param {HTMLElement} place @param {(change: Partial<View>) => void} set */
function renderFilters(viewer, place, set) {
  const { view, graph } = viewer;
  if (!place.childElementCount) {
    const limit = (/** @type {0 | 1} */ end, /** @type {string} */ name) =>
      element("input", {
        type: "number", min: 0, max: graph.nLayers, "data-key": `layer ${end}`, "aria-label": name, placeholder: end ? graph.nLayers - 1 : 0,
        input: () => {
          const [low, high] = [...place.querySelectorAll("input[type=number]")].map((one) => /** @type {HTMLInputElement} */ (one).value);
          set({ layers: low === "" && high === "" ? null : [low === "" ? 0 : Number(low), high === "" ? graph.nLayers - 1 : Number(high)] });
        },
      });
    place.append(
      element("input", { type: "search", placeholder: "search (/)", "aria-label": "search nodes", "data-key": "search", input: (/** @type {Event} */ event) => set({ search: /** @type {HTMLInputElement} */ (event.target).value }),
        keydown: (/** @type {KeyboardEvent} */ event) => event.key === "Enter" && listFound(viewer) }),
      element("label", {}, "layers ", limit(0, "lowest layer"), " – ", limit(1, "highest layer")),
      element("label", {}, "lines ", element("select", { "data-key": "links", change: (/** @type {Event} */ event) => set({ links: /** @type {any} */ (event.target).value }) },
        ...["either", "inputs", "outputs", "pinned"].map((name) => element("option", { value: name }, name)))),
      element("button", { "data-key": "reset", click: () => viewer.dispatch({ type: "reset" }), title: "remove filters and zoom" }, "Reset"),
      element("span", { role: "status" }, element("button.found", { "data-key": "found", title: "list the nodes found (Enter)", click: () => listFound(viewer) })));
  }
  const field = (/** @type {string} */ key) => /** @type {HTMLInputElement} */ (place.querySelector(`[data-key="${key}"]`));
  if (field("search") !== document.activeElement) field("search").value = view.search;
  field("links").value = view.links;
  for (const end of [0, 1]) {
    const one = field(`layer ${end}`);
    if (one !== document.activeElement) one.value = view.layers ? String(view.layers[end]) : "";
  }
  const count = /** @type {HTMLElement} */ (place.querySelector(".found"));
  count.textContent = foundText(viewer);
  count.hidden = !view.search;
}

/** Number of nodes that a search finds, and how many of them are hidden by what. @param {Viewer} viewer */
function foundText(viewer) {
  const { view, graph } = viewer;
  const rows = [...found(graph, viewer.labelled(), view.search)];
  const causes = rows.map(viewer.hiddenBy(view.active)).filter(Boolean);
  const counts = [...new Set(causes)].map((cause) => `, ${counted(causes.filter((one) => one === cause).length)} ${cause}`);
  return `${counted(rows.length)} found${counts.join("")}`;
}

/** Go to the list of nodes found. @param {Viewer} viewer */
function listFound(viewer) {
  viewer.dispatch({ type: "set", view: { tab: "list" } });
  whenDrawn(() => /** @type {HTMLElement | null} */ (document.querySelector(".nodes tbody button"))?.focus());
}
