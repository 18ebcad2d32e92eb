// @ts-check
// Render: draws the page from the state.
"use strict";

/** @param {Viewer} viewer */
function renderAll(viewer) {
  document.documentElement.dataset.theme = isDark(viewer.view) ? "dark" : "light";
  document.documentElement.style.setProperty("--side", `${viewer.view.side}px`);
  document.documentElement.style.setProperty("--below", `${viewer.view.below}px`);
  viewer.palette = readPalette();
  viewer.type = parseFloat(getComputedStyle(document.documentElement).fontSize) / 13;
  renderPlots(viewer);
  renderHead(viewer);
  renderFiled(viewer);
  renderControls(viewer);
  renderLegend(viewer);
  renderTabs(viewer);
  renderPanel(viewer);
  renderSubgraph(viewer);
  markPointed(viewer);
  rememberSoon(viewer);
}

/** Draw the plots; panes are reused for other graphs. @param {Viewer} viewer */
function renderPlots(viewer) {
  const { shown } = viewer;
  const known = viewer.plots.length;
  while (viewer.plots.length < shown.length) viewer.plots.push(makePane(viewer, viewer.plots.length));
  const place = byId("plots");
  const names = graphNames(viewer.graphs);
  const panes = shown.map((_, i) => /** @type {HTMLElement} */ (viewer.plots[i].root.parentElement));
  if (place.childElementCount !== panes.length) place.replaceChildren(...panes);
  shown.forEach((number, i) => {
    const name = /** @type {HTMLElement} */ (panes[i].firstElementChild);
    const here = shown.length > 1 && number === viewer.view.active;
    name.hidden = shown.length < 2;
    panes[i].ariaCurrent = here ? "true" : null; // the graph that panels and keys refer to
    const absent = lackingThere(viewer, number);
    name.replaceChildren(names[number], lacksBox(viewer, number) ? element("small.absent", {}, "the chosen box has no counterpart here") : absent ? element("small.absent", {}, `the clicked node is ${absent.here}`) : element("small.quiet", {}, leftOf(viewer, number)));
    viewer.plots[i].root.setAttribute("aria-label", plotName(viewer.graphs[number]));
  });
  document.body.classList.toggle("summarised", shown.every((number) => viewer.summary(number)));
  shown.forEach((number, i) => {
    const overview = viewer.summary(number);
    const over = /** @type {HTMLElement} */ (panes[i].lastElementChild);
    over.hidden = !overview;
    over.classList.toggle("lacking", lacksBox(viewer, number));
    viewer.plots[i].root.hidden = Boolean(overview);
    if (overview) drawSummary(over, overview, viewer.palette, boxesLeft(viewer.graphs[number], overview, drawnEffects(viewer, number)), chosenBox(viewer, number), (box) => chooseBox(viewer, number, box));
    else viewer.plots[i].draw(viewer.scene(number), viewer.faint(number));
  });
  if ("Plotly" in window) viewer.plots.slice(known).forEach((plot) => plot.attach());
}

/** @param {Viewer} viewer @param {number} i Which pane from the left. */
function makePane(viewer, i) {
  const look = () => viewer.view.active !== viewer.shown[i] && viewer.dispatch({ type: "set", view: { active: viewer.shown[i] } });
  const root = element("div.plot", { tabindex: "0", role: "application", focus: look });
  element("div.pane", {}, element("h2.pane-name", {}), root, element("div.summary", { hidden: true }));
  return makePlot(root, {
    onRange: (range) => viewer.dispatch({ type: "set", view: { range } }),
    onHover: (row, event) => !event.shiftKey && viewer.point(viewer.shown[i], row),
    onClick: (row, event) => {
      const number = viewer.shown[i];
      root.focus({ preventScroll: true });
      if (row !== null && (event.ctrlKey || event.metaKey)) viewer.dispatch({ type: "pin", graph: number, node: viewer.graphs[number].names[row] });
      else viewer.click(number, row);
    },
  });
}

/** @param {Graph} graph */
function plotName(graph) {
  return `Attribution graph of ${graph.heading}: ${graph.count} nodes by layer and token. Arrow keys move, Enter selects; the lists next to it show the same data.`;
}

/** @param {Viewer} viewer */
function renderHead(viewer) {
  const { graph, graphs, view } = viewer;
  const notes = viewer.labelled();
  byId("heading").textContent = document.title = viewer.shown.map((number) => graphs[number].heading).join(" | ");
  byId("origin").textContent = graph.origin;
  renderStrip(viewer);
  const targets = graph.names.map((_, row) => row).filter((row) => isTarget(graph, row)).sort((a, b) => graph.seed[b] - graph.seed[a]);
  refill(byId("predictions"), targets.slice(0, 8).map((row) =>
    element("button.prediction", {
      "data-key": `prediction ${row}`, "data-node": graph.names[row], "aria-pressed": String(viewer.clicked() === row),
      click: () => viewer.click(view.active, row), style: `--part: ${(100 * graph.seed[row]).toFixed(1)}%`,
    }, symbolOf(graph.kind[row]), element("bdi", {}, labelOf(graph, notes, row)))));
  renderGraphs(viewer);
  renderTools(viewer);
}

const TABS = /** @type {const} */ ({ node: "Node", list: "List", heads: "Heads", paths: "Paths", fields: "Fields", about: "Checks" });

/** @param {Viewer} viewer */
function renderTabs(viewer) {
  const { view, graph } = viewer;
  const failed = graph.failures.length > 0;
  const tabs = Object.entries(TABS).filter(([tab]) => tab !== "heads" || graph.attention || view.tab === tab);
  refill(byId("tabs"), tabs.map(([tab, name]) =>
    element("button", {
      role: "tab", id: `tab-${tab}`, "aria-selected": String(view.tab === tab), "aria-controls": "panel", "data-key": `tab ${tab}`, tabindex: view.tab === tab ? "0" : "-1",
      class: tab === "about" && failed ? "fails" : null, click: () => viewer.dispatch({ type: "set", view: { tab } }),
    }, tab === "about" && failed ? `${name} !` : name)));
  byId("panel").setAttribute("aria-labelledby", `tab-${view.tab}`);
}

/** @param {Viewer} viewer */
function renderPanel(viewer) {
  const { view, graph } = viewer;
  const notes = viewer.labelled();
  const context = {
    graph, notes, heads: headEvents(viewer),
    onWalk: (/** @type {number} */ row) => viewer.click(view.active, row, true),
    onPoint: (/** @type {number | null} */ row) => viewer.point(view.active, row),
    onPin: (/** @type {number[]} */ rows) => viewer.dispatch(rows.length > 1 ? { type: "pinAll", nodes: rows.map((one) => graph.names[one]) } : { type: "pin", node: graph.names[rows[0]] }),
  };
  const row = viewer.clicked();
  const place = byId("panel");
  const wanted = view.search ? found(graph, notes, view.search) : null;
  const rows = () => graph.names.map((_, n) => n).filter((n) => viewer.visible(view.active)[n] && (!wanted || wanted.has(n)));
  const more = (/** @type {"links" | "table"} */ what) => () => {
    viewer.most[what] = Infinity;
    viewer.schedule();
  };
  if (view.tab === "node") refill(place, viewer.summary(view.active) ? [summaryPanel(viewer, context), viewer.served && interventionPanel(viewer, context, null)] : view.group !== null && chosenGroup(viewer) ? [chosenGroupPanel(viewer, context)] : row === null ? [nothingClicked(viewer, context)] : nodePanel(viewer, context, row, more("links")));
  if (view.tab === "list") refill(place, [nodeTable(context, wanted ? [...wanted] : rows(), viewer.hiddenBy(view.active), viewer.order ?? (wanted ? "influence" : "token"), (order) => ((viewer.order = order), viewer.schedule()), viewer.most.table, more("table"))]);
  if (view.tab === "heads") refill(place, [headsPanel(viewer, context)]);
  if (view.tab === "paths") {
    const from = view.from === null ? undefined : graph.place.get(view.from);
    refill(place, [pathPanel(context, from, row, (path) => viewer.dispatch({ type: "pinAll", nodes: path.map((n) => graph.names[n]) }))]);
  }
  if (view.tab === "fields") {
    const key = JSON.stringify([view.fields, view.active, view.nodes, view.edges, view.without, view.layers, view.tokens, view.frequency, view.search, viewer.palette.ink, "Plotly" in window]);
    if (place.dataset.fields !== key) {
      place.dataset.fields = key;
      refill(place, [fieldPanel(graph, notes, view.fields, rows(), viewer.palette, (fields) => viewer.dispatch({ type: "set", view: { fields } }), context.onWalk)]);
    }
  } else delete place.dataset.fields;
  if (view.tab === "about") refill(place, [aboutPanel(graph, notes)]);
}

/** @param {Viewer} viewer @param {PanelContext} context @param {number} row @param {() => void} onMore */
function nodePanel(viewer, context, row, onMore) {
  const { view, graph } = viewer;
  const notes = viewer.labelled();
  const focus = /** @type {Focus} */ (viewer.focus(view.active));
  const name = graph.names[row];
  const group = notes.groups.find((one) => one.members.includes(name));
  const members = group ? memberList(context, group, name, (node) => viewer.dispatch({ type: "leave", node })) : null;
  const actions = {
    pin: () => viewer.dispatch({ type: "pin", node: name }),
    hide: () => viewer.dispatch({ type: "hide", node: name }),
    group: () => group && chooseGroup(viewer, group.name),
    pathsFrom: () => viewer.dispatch({ type: "set", view: { from: view.from === name ? null : name, tab: "paths" } }),
    label: (/** @type {string} */ text) => viewer.dispatch({ type: "label", key: labelKey(viewer.notes, name), text, dictionary: graph.dictionary, feature: featureKey(name) }),
    minus: (/** @type {string | null} */ minus) => viewer.dispatch({ type: "set", view: { minus } }),
  };
  const computed = graph.expanded[row] || isInput(graph, row) || graph.kind[row] === KIND.error || graph.kind[row] === KIND.bias;
  const minus = view.minus === null ? undefined : graph.place.get(view.minus);
  const lacking = graph.partial && minus !== undefined && differenceSize(graph, row, minus) === null;
  const nothing = computed ? "None of the shown nodes feed it." : "Its inputs were not computed.";
  return [
    nodeDetail(graph, notes, labelSource(graph, viewer.notes, viewer.state.mine, name), view, row, actions, numbersPanel(viewer, row), [writtenBy(context, row), members]),
    graph.kind[row] === KIND.head ? lookPanel(context, name) : null,
    viewer.served ? interventionPanel(viewer, context, isChangeable(graph, row) ? row : null) : null,
    linkList(context, view.minus ? `Feeds the difference${lacking ? ", among the edges in this page" : ""}` : "Fed by", nothing, focus.inputs, viewer.most.links, onMore),
    linkList(context, "Feeds", "It feeds none of the shown nodes.", focus.outputs, viewer.most.links, onMore),
    focus.because.length > 0 && linkList(context, "Looks there because of (dashed)", "", focus.because, viewer.most.links, onMore),
    focus.makes.length > 0 && linkList(context, "Makes heads look (dashed)", "", focus.makes, viewer.most.links, onMore),
  ];
}

/** Key of the shown label: the feature's at all positions, or the node's own. @param {Notes} notes @param {string} name */
function labelKey(notes, name) {
  const key = featureKey(name);
  return key && key in notes.labels && !(name in notes.labels) ? key : name;
}

/** The panel while no node is clicked. @param {Viewer} viewer @param {PanelContext} context */
function nothingClicked(viewer, context) {
  const { graph, view } = viewer;
  const notes = viewer.labelled();
  const seen = viewer.visible(view.active);
  const strongest = graph.names.map((_, row) => row).filter((row) => seen[row] && graph.kind[row] === KIND.feature);
  strongest.sort((a, b) => graph.influence[b] - graph.influence[a]);
  const items = strongest.slice(0, 12).map((row) =>
    element("li", {}, element("button.link.plain", { ...walking(context, row), "data-key": graph.names[row], "data-node": graph.names[row] },
      element("span.share", {}, percent(graph.influence[row])), element("span.what", {}, symbolOf(KIND.feature), element("bdi", {}, labelOf(graph, notes, row))), element("span.where", {}, placeText(graph, row)))));
  return element("section", { "aria-label": "where to begin" },
    element("p.quiet", {}, "Click a node to see only its inputs and outputs. Drag to move, scroll to zoom, ? for keys."),
    ...graph.failures.map((sentence) => element("p.fails", { role: "alert" }, sentence)),
    strongest.length > 0 && element("h3", {}, "Features with the most influence"),
    element("ul.strongest", { keydown: stepThrough }, ...items),
    viewer.served && interventionPanel(viewer, context, null),
    ...graph.remarks.map((sentence) => element("p.quiet", {}, sentence)));
}

/** @param {Viewer} viewer */
function renderSubgraph(viewer) {
  const { graph, view } = viewer;
  const notes = viewer.labelled();
  const place = byId("parts");
  const key = () => JSON.stringify([view.active, notes, [...viewer.chosen], view.fit, view.unfolded, place.clientWidth, place.clientHeight]);
  if (place.dataset.drawn === key()) return;
  const member = new Uint8Array(graph.count);
  for (const { rows } of partsOf(graph, notes, view.unfolded)) for (const row of rows) member[row] = 1;
  const any = total(member) > 0;
  byId("subgraph").classList.toggle("empty", !any);
  const [absorbed, left] = any ? [scoresOfNodes(graph, member, "absorbed"), scoresOfNodes(graph, member, "renormalised")] : [null, null];
  const button = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ click, disabled = !any) =>
    element("button", { click, title, disabled, "data-key": `sub ${text}` }, text);
  refill(byId("subtools"), [
    element("h2", {}, "Subgraph"),
    button("Suggest groups", "automatic groups of features with one role", () => viewer.dispatch({ type: "suggest", groups: graph.suggested }), !graph.suggested.length),
    button("Group", "group the chosen boxes (Shift-click, or hold g and click)", () => groupChosen(viewer), viewer.chosen.size < 1),
    button("Tidy", "reset the positions of boxes", () => viewer.dispatch({ type: "tidy" })),
    toggle("fit", view.fit, "scale the boxes to fit", () => viewer.dispatch({ type: "set", view: { fit: !view.fit } })),
    button("PNG", "save the subgraph as a picture", () => savePicture(viewer, "subgraph", "png")),
    button("SVG", "save the subgraph as a drawing", () => savePicture(viewer, "subgraph", "svg")),
    absorbed && left && element("span.left", { role: "status", title: "nodes that are not pinned count as error | are left out" },
      `replacement ${percent(absorbed.replacement)} | ${percent(left.replacement)} · completeness ${percent(absorbed.completeness)} | ${percent(left.completeness)}${graph.partial ? " of the part in this page" : ""}`),
  ]);
  place.dataset.drawn = key(); // with the height left by these tools
  drawSubgraph(place, graph, notes, viewer.chosen, view, {
    onWalk: (part) => (part.isGroup ? chooseGroup(viewer, part.name) : viewer.click(view.active, part.rows[0], true)),
    onPoint: (part) => viewer.point(view.active, part && strongestOf(graph, part.rows)),
    onMove: (part, x, y, again) => viewer.dispatch({ type: "move", name: part.name, x, y, again }),
    onGroup: (part) => {
      if (!viewer.chosen.delete(part.name)) viewer.chosen.add(part.name);
      viewer.schedule();
    },
    onRemove: (part) => {
      viewer.dispatch(part.isGroup ? { type: "ungroup", name: part.name } : part.of !== null ? { type: "leave", node: part.name } : { type: "pin", node: part.name });
      focusSoon(part.rows.map((row) => `part ${graph.names[row]}`));
    },
    onFold: (name) => viewer.dispatch({ type: "unfold", name }),
    onRename: (part) => (part.isGroup ? renameGroup(viewer, part.name) : renameNode(viewer, part.rows[0])),
  });
}

/** @param {Graph} graph @param {number[]} rows */
function strongestOf(graph, rows) {
  return rows.reduce((best, row) => (graph.arrived[row] > graph.arrived[best] ? row : best));
}
