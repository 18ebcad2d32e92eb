// @ts-check
// Plot: the link graph of one graph in the page; plotly.js zooms and pans, canvases show it.
"use strict";

/**
 * @typedef {object} Plot
 * @property {HTMLElement} root
 * @property {(scene: Scene, left: ArrayLike<number>) => void} draw
 * @property {() => [number, number]} size
 * @property {(x: number, y: number) => number | null} nodeAt
 * @property {(lines: string[] | null, row: number | null) => void} showTooltip
 * @property {() => void} attach Attach plotly, once it is loaded.
 *
 * @typedef {object} PlotEvents
 * @property {(range: [number, number, number, number] | null) => void} onRange
 * @property {(row: number | null, event: PointerEvent) => void} onHover
 * @property {(row: number | null, event: PointerEvent) => void} onClick
 */

const NEAR = 30; // pixels within which the pointer selects a node
const MOVED = 4; // pixels above which a press is a drag
const AT_ONCE = 900; // edges drawn in one picture

/**
 * @param {HTMLElement} root
 * @param {PlotEvents} events
 * @returns {Plot}
 */
function makePlot(root, events) {
  const canvases = ["frame", "faint", "marks"].map((layer) => /** @type {HTMLCanvasElement} */ (element(`canvas.${layer}`)));
  const axes = element("div.axes");
  const tip = element("div.tip", { role: "status", hidden: true });
  root.replaceChildren(...canvases, axes, tip);
  /** @type {Scene | null} */
  let scene = null;
  /** @type {string} */
  let faintKey = "";
  /** @type {Level | null} */
  let faintLevel = null;
  let picture = 0;
  const hidden = document.createElement("canvas");

  /** @param {number} x @param {number} y Pixels from the corner of the plot. */
  function nodeAt(x, y) {
    if (!scene) return null;
    const { frame, visible, near } = scene;
    let best = null;
    let distance = NEAR;
    for (let n = 0; n < visible.length; n++) {
      if (!visible[n]) continue;
      const away = Math.hypot(acrossOf(frame, frame.level.x[n]) - x, downOf(frame, frame.level.y[n]) - y);
      const handicap = near && !near.has(n) && n !== scene.clicked ? NEAR / 2 : 0; // prefer highlighted nodes
      if (away + handicap < distance) [best, distance] = [n, away + handicap];
    }
    return best;
  }

  /** @param {HTMLCanvasElement} canvas */
  function cleared(canvas) {
    const [width, height] = size();
    const sharp = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * sharp) || canvas.height !== Math.round(height * sharp)) {
      [canvas.width, canvas.height] = [Math.round(width * sharp), Math.round(height * sharp)];
    }
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  /** @returns {[number, number]} */
  function size() {
    return [root.clientWidth, root.clientHeight];
  }

  /** Axes and faint edges are redrawn only when the view moves, the rest at every click. @param {Scene} next @param {ArrayLike<number>} others */
  function draw(next, others) {
    scene = next;
    const { frame, palette } = next;
    const key = JSON.stringify([size(), frame.range, others.length, others[others.length - 1], palette.paper]);
    if (key !== faintKey || frame.level !== faintLevel) {
      [faintKey, faintLevel] = [key, frame.level];
      drawAxes(canvasPen(cleared(canvases[0])), next);
      drawOthers({ ...next, near: null, ends: null, wanted: null }, others, ++picture);
    }
    canvases[1].style.opacity = isBehind(next) ? String(BEHIND) : "1";
    const pen = canvasPen(cleared(canvases[2]));
    pen.within(frame, () => pen.edges(highlightedStrokes(next), palette.paper));
    const radius = radii(next.graph, frame, next.most);
    drawHulls(pen, next, radius);
    drawNodes(pen, next, radius);
    drawLabels(pen, next, radius);
    /** @type {any} */ (axes).follow?.();
  }

  /**
   * The strongest edges at once.  If there are more, all are drawn out of sight, some in each
   * picture, so that the page answers meanwhile, and then shown.
   * @param {Scene} drawn
   * @param {ArrayLike<number>} edges Strongest first.
   * @param {number} number
   */
  function drawOthers(drawn, edges, number) {
    const pen = canvasPen(cleared(canvases[1]));
    pen.within(drawn.frame, () => pen.edges(overviewStrokes(drawn, edges, 0, AT_ONCE), drawn.palette.paper));
    delete root.dataset.settled;
    if (edges.length <= AT_ONCE) root.dataset.settled = String(number);
    else requestAnimationFrame(() => drawRest(drawn, edges, number));
  }

  /** @param {Scene} drawn @param {ArrayLike<number>} edges @param {number} number */
  function drawRest(drawn, edges, number) {
    const context = /** @type {CanvasRenderingContext2D} */ (hidden.getContext("2d"));
    [hidden.width, hidden.height] = [canvases[1].width, canvases[1].height];
    context.setTransform(/** @type {CanvasRenderingContext2D} */ (canvases[1].getContext("2d")).getTransform());
    const pen = canvasPen(context);
    let last = edges.length;
    const more = () => {
      if (number !== picture) return;
      const first = Math.max(0, last - AT_ONCE);
      pen.within(drawn.frame, () => pen.edges(overviewStrokes(drawn, edges, first, last), drawn.palette.paper));
      last = first;
      if (last) {
        requestAnimationFrame(more);
        return;
      }
      const shown = cleared(canvases[1]);
      shown.resetTransform();
      shown.drawImage(hidden, 0, 0);
      root.dataset.settled = String(number);
    };
    more();
  }

  /** @param {string[] | null} lines @param {number | null} row */
  function showTooltip(lines, row) {
    tip.hidden = !lines || row === null || !scene;
    if (!lines || row === null || !scene) return;
    tip.replaceChildren(...lines.map((line, i) => element(i ? "div" : "strong", {}, line)));
    const { frame } = scene;
    const [x, y] = [acrossOf(frame, frame.level.x[row]), downOf(frame, frame.level.y[row])];
    const [width, height] = size();
    tip.style.left = `${Math.max(4, Math.min(x + 16, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, y + 16 + tip.offsetHeight > height ? y - 16 - tip.offsetHeight : y + 16)}px`;
  }

  listenTo(root, axes, nodeAt, events);
  const attach = () => attachPlotly(axes, () => scene, size, events.onRange);
  return { root, draw, size, nodeAt, showTooltip, attach };
}

/**
 * Distinguish clicks from drags by the distance of the pointer; plotly handles drags.
 * @param {HTMLElement} root
 * @param {HTMLElement} axes
 * @param {Plot["nodeAt"]} nodeAt
 * @param {PlotEvents} events
 */
function listenTo(root, axes, nodeAt, events) {
  /** @type {[number, number] | null} */
  let pressed = null;
  const at = (/** @type {PointerEvent} */ event) => {
    const box = root.getBoundingClientRect();
    return nodeAt(event.clientX - box.left, event.clientY - box.top);
  };
  root.addEventListener("pointermove", (event) => events.onHover(at(event), event));
  root.addEventListener("pointerleave", (event) => events.onHover(null, event));
  for (const end of ["keydown", "blur"]) root.addEventListener(end, () => delete root.dataset.pressed);
  root.addEventListener("pointerdown", (event) => {
    root.dataset.pressed = "yes"; // focused by mouse
    const onButton = event.target instanceof Element && event.target.closest(".modebar, .tip");
    pressed = event.button === 0 && !onButton ? [event.clientX, event.clientY] : null;
  }, true);
  window.addEventListener("pointerup", (event) => {
    const near = pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < MOVED;
    pressed = null;
    if (near) events.onClick(at(event), event);
  }, true);
}

/**
 * Plotly's axes run from 0 to 1 over the whole layout at every level.
 * @param {HTMLElement} axes
 * @param {() => Scene | null} scene
 * @param {() => [number, number]} size
 * @param {PlotEvents["onRange"]} onRange
 */
function attachPlotly(axes, scene, size, onRange) {
  const plotly = /** @type {any} */ (window).Plotly;
  const axis = { showgrid: false, zeroline: false, showline: false, showticklabels: false, ticks: "" };
  const layout = () => {
    const [l, r, b, t] = scene()?.frame.range ?? FULL;
    const [width, height] = size();
    return {
      width, height, dragmode: "pan", hovermode: false, showlegend: false,
      margin: { l: MARGIN.left, r: MARGIN.right, t: scene()?.frame.above ?? 0, b: MARGIN.bottom },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#8a919c", activecolor: "#4a90d9", orientation: "h" },
      xaxis: { ...axis, range: [l, r] }, yaxis: { ...axis, range: [b, t] },
    };
  };
  const config = {
    displaylogo: false, displayModeBar: true, scrollZoom: true, showSendToCloud: false, doubleClick: false,
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "autoScale2d", "resetScale2d"],
    modeBarButtonsToAdd: [{ name: "home", title: "Home: the whole graph (0)", icon: plotly.Icons.home, click: () => onRange(null) }],
  };
  plotly.newPlot(axes, [], layout(), config);
  const gd = /** @type {any} */ (axes);
  const moved = (/** @type {any} */ change) => {
    const range = { ...change };
    const side = (/** @type {string} */ name, /** @type {number} */ end) =>
      range[`${name}.range[${end}]`] ?? range[`${name}.range`]?.[end] ?? gd.layout[name].range[end];
    onRange([side("xaxis", 0), side("xaxis", 1), side("yaxis", 0), side("yaxis", 1)]);
  };
  let dragging = false;
  gd.on("plotly_relayouting", (/** @type {any} */ change) => {
    dragging = true;
    moved(change);
  });
  gd.on("plotly_relayout", (/** @type {any} */ change) => {
    dragging = false;
    if (Object.keys(change).some((key) => key.includes("axis"))) moved(change);
  });
  gd.on("plotly_doubleclick", () => onRange(null));
  gd.follow = () => {
    const wanted = layout();
    const same = JSON.stringify([wanted.width, wanted.height, wanted.margin.t, wanted.xaxis.range, wanted.yaxis.range]) ===
      JSON.stringify([gd.layout.width, gd.layout.height, gd.layout.margin.t, gd.layout.xaxis.range, gd.layout.yaxis.range]);
    if (!same && !dragging) plotly.relayout(axes, { width: wanted.width, height: wanted.height, "margin.t": wanted.margin.t, "xaxis.range": wanted.xaxis.range, "yaxis.range": wanted.yaxis.range });
  };
}
