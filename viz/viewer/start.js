// @ts-check
// Start: read the page's data, draw, then load plotly from the page.
"use strict";

/** @param {Viewer} viewer */
function listenToPage(viewer) {
  new ResizeObserver(() => viewer.schedule()).observe(byId("plots"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => viewer.schedule());
  byId("file").addEventListener("change", (event) => {
    const field = /** @type {HTMLInputElement} */ (event.target);
    if (field.files?.[0]) loadAnnotations(viewer, field.files[0]);
    field.value = "";
  });
  window.addEventListener("hashchange", () => {
    viewer.state = withShared(viewer.state, sharedState(location.hash));
    viewer.schedule();
  });
  // Several windows of one page stay in sync.
  window.addEventListener("storage", (event) => {
    const dictionary = viewer.graphs.map((graph) => graph.dictionary).find((one) => one !== null && event.key === dictionaryKey(one));
    if (dictionary) {
      viewer.state = labelledElsewhere(viewer.state, dictionary, storedLabels(dictionary));
      viewer.schedule();
    }
    if (event.key !== storageKey(viewer.graphs) || !event.newValue) return;
    viewer.state = inStep(viewer.graphs, viewer.state, storedState(viewer.graphs));
    viewer.changed = false; // it is stored already
    viewer.schedule();
  });
  window.addEventListener("pagehide", () => viewer.changed && store(viewer.graphs, viewer.state));
  listenToPresses(viewer);
  listenToPrinting(viewer);
  for (const [name, axis, key] of /** @type {const} */ ([[".divider.side", "clientX", "side"], [".divider.below", "clientY", "below"]])) {
    listenToDivider(viewer, /** @type {HTMLElement} */ (document.querySelector(name)), axis, key);
  }
}

/** Do not redraw while a button is pressed: a change event of a field must not replace the button. @param {Viewer} viewer */
function listenToPresses(viewer) {
  document.addEventListener("pointerdown", (event) => {
    viewer.held = event.target instanceof Element && Boolean(event.target.closest("#panel button, #panel a, header button, #controls button"));
  }, true);
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => {
      viewer.held = false;
      setTimeout(() => viewer.late && viewer.schedule()); // after the click
    }, true);
  }
}

/** @param {Viewer} viewer @param {HTMLElement} divider @param {"clientX" | "clientY"} axis @param {"side" | "below"} key */
function listenToDivider(viewer, divider, axis, key) {
  const most = () => (key === "side" ? window.innerWidth - 360 : byId("left").clientHeight - 160);
  const resize = (/** @type {number} */ size) =>
    viewer.dispatch({ type: "set", view: { [key]: Math.round(Math.max(key === "side" ? 260 : 40, Math.min(most(), size))) } });
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    const [start, size] = [event[axis], viewer.view[key]];
    const move = (/** @type {PointerEvent} */ to) => resize(size + start - to[axis]);
    divider.addEventListener("pointermove", move);
    divider.addEventListener("lostpointercapture", () => divider.removeEventListener("pointermove", move), { once: true });
  });
  divider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: 20, ArrowUp: 20, ArrowRight: -20, ArrowDown: -20 }[event.key];
    if (!step) return;
    event.preventDefault();
    resize(viewer.view[key] + step);
  });
}

/** Plotly takes longer to start than the rest of the page to draw, so it is started afterwards. @param {Viewer} viewer */
async function loadPlotly(viewer) {
  run(await unpacked("plotly"));
  await new Promise((go) => setTimeout(go)); // what was pressed meanwhile comes first
  viewer.plots.forEach((plot) => plot.attach());
  viewer.schedule();
  performance.mark("zooms");
  document.documentElement.dataset.ready = "yes";
}

function start() {
  const viewer = new Viewer(readData(pageData));
  renderAll(viewer);
  if (isRenewed(viewer.graphs)) announce("The annotations in this file have changed since your last visit and are shown; undo (u) restores the old ones.");
  listenToKeys(viewer);
  listenToPage(viewer);
  requestAnimationFrame(() => {
    performance.mark("drawn");
    setTimeout(() => loadPlotly(viewer));
  });
  return viewer;
}

const viewer = start();
