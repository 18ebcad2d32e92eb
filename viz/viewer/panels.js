// @ts-check
// Panels: paths between two nodes, a scatter plot of two fields, and checks.
"use strict";

const MOST_PATHS = 20;
const MOST_SEARCHED = 200; // paths, of which those by the same groups are listed as one

/**
 * @param {PanelContext} context
 * @param {number | undefined} from
 * @param {number | null} to
 * @param {(rows: number[]) => void} onPin
 */
function pathPanel(context, from, to, onPin) {
  const { graph, notes } = context;
  if (from === undefined || to === null || from === to) {
    const hint = from === undefined ? "Click a node and choose “Paths from here”, then click a later node." : "Now click the node at the end of the paths.";
    return element("p.quiet", {}, hint);
  }
  const [source, target] = [Math.min(from, to), Math.max(from, to)];
  const routes = routesOf(graph, strongestPaths(graph, source, target, MOST_SEARCHED), groupNames(graph, notes)).slice(0, MOST_PATHS);
  const arrived = graph.arrived[target] || 1;
  const items = routes.map((route, number) =>
    element("li", {},
      element("p", {}, `${route.net < 0 ? "−" : "+"}${percent(route.share / arrived)}`, element("span.quiet", {}, ` of the influence on the end node${route.paths.length > 1 ? ` on ${counted(route.paths.length)} paths` : ""} `),
        element("button", { click: () => onPin(route.steps.flatMap(({ rows }) => rows)), "data-key": `pin path ${number}` }, "Pin")),
      element("p.steps", {}, ...route.steps.flatMap((step, place) => [place ? arrowOf(graph, route, place) : "", stepButton(context, step, `path ${number} ${step.rows[0]}`)]))));
  return element("section", { "aria-label": "paths" },
    element("h3", {}, "Strongest paths from ", element("bdi", {}, shortLabel(graph, notes, source)), " to ", element("bdi", {}, shortLabel(graph, notes, target))),
    routes.length ? element("ol.paths", {}, ...items) : element("p.quiet", {}, "No path leads from one to the other."));
}

/** The arrow that leads to a step; its share where it is a single edge. @param {Graph} graph @param {Route} route @param {number} place */
function arrowOf(graph, route, place) {
  const edge = route.paths.length === 1 && route.steps.every(({ rows }) => rows.length === 1) ? route.paths[0].edges[place - 1] : null;
  if (edge === null) return element("span", {}, " → ");
  return element("span", { class: graph.share[edge] < 0 ? "negative" : "positive", title: signed(graph.share[edge]) }, " → ");
}

/** @param {PanelContext} context @param {Step} step @param {string} key */
function stepButton(context, { group, rows }, key) {
  const { graph, notes } = context;
  const row = strongestOf(graph, rows);
  const text = group ?? shortened(shortLabel(graph, notes, row), 30);
  return element("button", { ...walking(context, row), "data-key": key, title: group === null ? null : `group: ${rows.length} of its nodes` }, element(group === null ? "bdi" : "bdi.grouped", {}, text), element("small.quiet", {}, ` ${placeText(graph, row)}`));
}

/** Numeric fields of nodes. @type {Record<string, (graph: Graph, row: number) => number>} */
const FIELDS = {
  layer: (graph, row) => graph.layer[row],
  position: (graph, row) => graph.pos[row],
  influence: (graph, row) => graph.influence[row],
  "cumulative influence": (graph, row) => graph.before[row] + graph.influence[row],
  activation: (graph, row) => graph.activation[row],
  value: (graph, row) => graph.value[row],
  inputs: (graph, row) => edgesAt(graph.inputs, row).length,
  outputs: (graph, row) => edgesAt(graph.outputs, row).length,
  frequency: (graph, row) => graph.frequency[row],
};

/**
 * Scatter plot of two fields of the visible nodes, drawn by plotly.
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {[string, string]} fields
 * @param {number[]} rows
 * @param {Palette} palette
 * @param {(fields: [string, string]) => void} onFields
 * @param {(row: number) => void} onWalk
 */
function fieldPanel(graph, notes, fields, rows, palette, onFields, onWalk) {
  fields = /** @type {[string, string]} */ (fields.map((field, side) => (field in FIELDS ? field : ["layer", "influence"][side])));
  const choice = (/** @type {0 | 1} */ side, /** @type {string} */ name) =>
    element("label", {}, `${name} `, element("select", {
      "data-key": `field ${side}`,
      change: (/** @type {Event} */ event) => {
        const value = /** @type {HTMLSelectElement} */ (event.target).value;
        onFields(side ? [fields[0], value] : [value, fields[1]]);
      },
    }, ...Object.keys(FIELDS).map((field) => element("option", { value: field, selected: fields[side] === field }, field))));
  const place = element("div.fields", { role: "img", "aria-label": `${fields[1]} against ${fields[0]} of the nodes shown` });
  const plotly = /** @type {any} */ (window).Plotly;
  if (!plotly) return element("p.quiet", {}, "Loading…");
  const ink = { color: palette.ink, gridcolor: palette.pale, zerolinecolor: palette.pale };
  const traces = KINDS.map((kind, number) => ({ kind, own: rows.filter((row) => graph.kind[row] === number) })).filter(({ own }) => own.length);
  setTimeout(() => {
    plotly.newPlot(place, traces.map(({ kind, own }) => ({
      type: "scatter", mode: "markers", name: kind, customdata: own,
      x: own.map((row) => FIELDS[fields[0]](graph, row)), y: own.map((row) => FIELDS[fields[1]](graph, row)),
      text: own.map((row) => escaped(shortened(labelOf(graph, notes, row), 60))), hovertemplate: "%{text}<extra></extra>",
      marker: { size: 7, opacity: 0.7, color: palette[/** @type {keyof Palette} */ (COLOURED[KINDS.indexOf(kind)])], symbol: { token: "square", position: "square-open", bias: "triangle-up", feature: "circle", error: "diamond-open", logit: "star", target: "hexagon", head: "triangle-down" }[kind] },
    })), {
      autosize: true, height: 380, margin: { l: 56, r: 10, t: 10, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: palette.ink, size: 11 },
      xaxis: { title: { text: fields[0] }, ...ink }, yaxis: { title: { text: fields[1] }, ...ink }, legend: { orientation: "h", y: -0.2 },
    }, { displaylogo: false, displayModeBar: false, showSendToCloud: false, typesetMath: false, responsive: true });
    /** @type {any} */ (place).on("plotly_click", (/** @type {any} */ event) => onWalk(event.points[0].customdata));
  });
  return element("section", { "aria-label": "fields" }, element("p", {}, choice(0, "across"), " ", choice(1, "up")), place);
}

/** Checks, scores, remarks and interventions of a graph. @param {Graph} graph @param {Notes} notes */
function aboutPanel(graph, notes) {
  const checks = graph.checks.map(({ name, text, holds }) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, unbroken(text)), element("td", { class: holds === false ? "fails" : "holds" }, holds === null ? "" : holds ? "holds" : "fails")));
  const scores = [["replacement", graph.scores.replacement], ["completeness", graph.scores.completeness]].map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, `${name} of the whole graph`), element("td", {}, percent(/** @type {number} */ (value))), element("td")));
  return element("section", { "aria-label": "about this graph" },
    element("p", {}, graph.origin),
    ...graph.failures.map((sentence) => element("p.fails", { role: "alert" }, sentence)),
    element("table", {}, element("caption", {}, "Checks"), element("tbody", {}, ...checks, ...scores)),
    ...graph.remarks.map((sentence) => element("p", {}, sentence)),
    element("h3", {}, "Interventions: predicted and measured"),
    graph.measured.length ? measuredTable(graph, notes) : element("p.quiet", {}, "No interventions were run on this graph."));
}

/** A text in which no line ends within a number as 1e-03. @param {string} text */
function unbroken(text) {
  return text.replace(/(\de)-(?=\d)/g, "$1\u2011");
}

/** All keys. */
const KEYS = [
  ["← →", "to the node at the token before or after"], ["↑ ↓", "to the node a layer above or below"], ["Enter", "select the current node"],
  ["Esc", "clear the click"], ["p", "pin or unpin"], ["g", "hold and click boxes to group them; release to make the group"], ["h", "hide"], ["t", "paths from here"],
  ["[ ]", "keep fewer or more nodes"], ["{ }", "keep fewer or more edges"], ["< >", "hide more or fewer of the frequently active features"], [", .", "draw fewer or more of these edges"], ["e", "draw edges, or only those of the clicked node"], ["a", "attention heads"], ["/", "search"], ["u  r", "undo, redo"], ["0", "zoom out"],
  ["s", "summary or full graph"], ["d", "light or dark"], ["Shift", "hold to keep pointing at the current node"], ["Alt", "hold for raw numbers while pointing"], ["w", "words: what scores and shares are"], ["?", "this help"],
];

/** Keys on a box of the subgraph. */
const KEYS_OF_BOXES = [
  ["arrows", "to the next box"], ["Enter", "select: show its details, inputs and outputs"], ["Shift Enter", "choose it for a group"], ["Shift arrows", "move it"],
  ["F2", "rename a group, label a node"], ["Delete", "ungroup a group, unpin a node; in a list of members: remove"],
];

function helpPanel() {
  const table = (/** @type {string} */ title, /** @type {string[][]} */ keys) =>
    element("table.keys", {}, element("caption", {}, title), element("tbody", {}, ...keys.map(([key, what]) => element("tr", {}, element("th", { scope: "row" }, element("kbd", {}, key)), element("td", {}, what)))));
  return element("div", {}, table("Keys", KEYS), table("Keys on a box of the subgraph", KEYS_OF_BOXES));
}
