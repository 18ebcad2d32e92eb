// @ts-check
// Keys: keyboard control of the page.
"use strict";

const STEP = 0.05; // of a threshold
const DECADES = 0.25; // of a frequency
const GRAPH_PLACE = ".summary:not([hidden]) .overview [tabindex='0'], .plot:not([hidden])";

/** @param {Viewer} viewer */
function listenToKeys(viewer) {
  document.addEventListener("keydown", (event) => {
    const field = event.target instanceof Element && event.target.closest("input:not([type=range]), select, textarea, dialog");
    if (field) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      event.preventDefault();
      viewer.dispatch({ type: event.shiftKey ? "redo" : "undo" });
    }
    if (event.key === "Alt") {
      viewer.raw = true;
      refreshTooltip(viewer);
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return; // shortcuts of the browser
    const arrows = event.key.startsWith("Arrow");
    const elsewhere = event.target instanceof Element && event.target.closest("input, [role=tablist], .divider, table");
    if (arrows && elsewhere) return;
    if (event.key === "Enter" && event.target instanceof Element && event.target.closest("button, a")) return;
    const action = KEY_ACTIONS[event.key];
    if (!action) return;
    event.preventDefault();
    action(viewer, event);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === "Alt") {
      viewer.raw = false;
      refreshTooltip(viewer);
    }
    if (event.key === "g" && document.body.classList.contains("grouping")) {
      document.body.classList.remove("grouping");
      groupChosen(viewer);
    }
  });
  window.addEventListener("blur", () => {
    document.body.classList.remove("grouping"); // a key released in another window fires no event here
    viewer.raw = false;
  });
  byId("skips").addEventListener("click", (event) => {
    event.preventDefault(); // the address is for what is shared
    const panel = event.target instanceof Element && event.target.getAttribute("href") === "#panel";
    const place = (panel ? null : document.querySelector(GRAPH_PLACE)) ?? byId(`tab-${viewer.view.tab}`);
    /** @type {HTMLElement} */ (place).focus();
  });
  byId("tabs").addEventListener("keydown", (event) => {
    const names = Object.keys(TABS).filter((name) => document.getElementById(`tab-${name}`));
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const tab = /** @type {View["tab"]} */ (names[(names.indexOf(viewer.view.tab) + step + names.length) % names.length]);
    viewer.dispatch({ type: "set", view: { tab } });
    whenDrawn(() => byId(`tab-${tab}`).focus());
  });
}

/** Redraw the tooltip. @param {Viewer} viewer */
function refreshTooltip(viewer) {
  const { hovered } = viewer;
  viewer.point(viewer.view.active, null);
  if (hovered) viewer.point(hovered.graph, hovered.row);
}

/** The node that keys act on: the pointed one, else the clicked one. @param {Viewer} viewer */
function current(viewer) {
  const here = viewer.hovered?.graph === viewer.view.active ? viewer.hovered.row : null;
  return here ?? viewer.clicked();
}

/** @param {Viewer} viewer @param {(row: number) => void} act */
function onCurrent(viewer, act) {
  const row = current(viewer);
  if (row === null) announce("Point at a node or click one first.");
  else act(row);
}

/** @param {Viewer} viewer @param {"nodes" | "edges"} name @param {number} step */
function moveThreshold(viewer, name, step) {
  const value = Math.min(1, Math.max(0, Math.round((viewer.view[name] + step) * 1000) / 1000));
  viewer.dispatch({ type: "set", view: { [name]: value } });
}

/** @param {Viewer} viewer @param {number} step */
function moveBudget(viewer, step) {
  const { held } = viewer.budget(viewer.view.active);
  const drawn = Math.min(1, Math.max(0, Math.round((held + step) / STEP) * STEP));
  viewer.dispatch({ type: "set", view: { drawn, faint: true } });
}

/** @param {Viewer} viewer @param {number} step */
function moveFrequency(viewer, step) {
  if (!viewer.shown.some((one) => knowsFrequencies(viewer.graphs[one]))) return announce("The activation frequency of these features is unknown.");
  viewer.dispatch({ type: "set", view: { frequency: frequencyAt(decadesOf(viewer.view.frequency) + step) } });
}

/** @type {Record<string, (viewer: Viewer, event: KeyboardEvent) => void>} */
const KEY_ACTIONS = {
  ArrowLeft: (viewer) => walk(viewer, -1, 0),
  ArrowRight: (viewer) => walk(viewer, 1, 0),
  ArrowUp: (viewer) => walk(viewer, 0, 1),
  ArrowDown: (viewer) => walk(viewer, 0, -1),
  Enter: (viewer) => onCurrent(viewer, (row) => viewer.click(viewer.view.active, row, true)),
  Escape: (viewer) => {
    viewer.point(viewer.view.active, null);
    viewer.dispatch({ type: "clear" });
  },
  p: (viewer) => onCurrent(viewer, (row) => viewer.dispatch({ type: "pin", node: viewer.graph.names[row] })),
  h: (viewer) => onCurrent(viewer, (row) => viewer.dispatch({ type: "hide", node: viewer.graph.names[row] })),
  t: (viewer) => onCurrent(viewer, (row) => viewer.dispatch({ type: "set", view: { from: viewer.graph.names[row], tab: "paths" } })),
  g: (_, event) => !event.repeat && document.body.classList.add("grouping"),
  "[": (viewer) => moveThreshold(viewer, "nodes", -STEP),
  "]": (viewer) => moveThreshold(viewer, "nodes", STEP),
  "{": (viewer) => moveThreshold(viewer, "edges", -STEP),
  "}": (viewer) => moveThreshold(viewer, "edges", STEP),
  ",": (viewer) => moveBudget(viewer, -2 * STEP),
  ".": (viewer) => moveBudget(viewer, 2 * STEP),
  "<": (viewer) => moveFrequency(viewer, -DECADES),
  ">": (viewer) => moveFrequency(viewer, DECADES),
  s: (viewer) => viewer.graph.overview && viewer.dispatch({ type: "set", view: { summary: !viewer.view.summary } }),
  a: (viewer) => viewer.dispatch({ type: "set", view: { tab: "heads" } }),
  e: (viewer) => viewer.dispatch({ type: "set", view: { faint: !viewer.view.faint } }),
  u: (viewer) => viewer.dispatch({ type: "undo" }),
  r: (viewer) => viewer.dispatch({ type: "redo" }),
  d: switchTheme,
  0: (viewer) => viewer.dispatch({ type: "set", view: { range: null } }),
  w: showWords,
  "/": () => /** @type {HTMLElement} */ (document.querySelector("[data-key=search]")).focus(),
  "?": showHelp,
};

/** Point at the nearest node in a direction. @param {Viewer} viewer @param {number} right @param {number} up */
function walk(viewer, right, up) {
  const { graph, view } = viewer;
  const level = viewer.level(view.active);
  const visible = viewer.visible(view.active);
  const focus = viewer.focus(view.active);
  const open = (/** @type {number} */ n) => visible[n] && (!focus || n === focus.row || focus.near.has(n));
  const from = current(viewer);
  let best = null;
  let least = Infinity;
  for (let n = 0; n < graph.count; n++) {
    if (!open(n) || n === from) continue;
    if (from === null) {
      if (isTarget(graph, n) && -graph.seed[n] < least) [best, least] = [n, -graph.seed[n]];
      continue;
    }
    const [dx, dy] = [level.x[n] - level.x[from], level.y[n] - level.y[from]];
    const ahead = dx * right + dy * up;
    const aside = Math.abs(dx * up) + Math.abs(dy * right);
    if (ahead > 0.01 && ahead + 3 * aside < least) [best, least] = [n, ahead + 3 * aside];
  }
  if (best === null) return;
  viewer.point(view.active, best);
  announce(`${labelOf(graph, viewer.labelled(), best)}, ${graph.names[best]} ${placeText(graph, best)}`);
}
