// @ts-check
// Drawing: the link graph by layer and token, with any pen.
"use strict";

/**
 * @typedef {object} Frame Place of a layout on the screen, in pixels.
 * @property {Level} level
 * @property {number} left
 * @property {number} top
 * @property {number} width
 * @property {number} height
 * @property {[number, number, number, number]} range Visible part: left, right, bottom, top, 0 to 1.
 * @property {[number, number]} unit Pixels per unit of the layout.
 * @property {number} above Pixels above it for the labels of predictions.
 * @property {number} type Scale of texts and markers, 1 on a laptop.
 *
 * @typedef {Record<"paper" | "ink" | "grey" | "pale" | "positive" | "negative" | "token" | "feature" |
 *   "error" | "bias" | "target" | "head" | "pin" | "cursor" | "less" | "same" | "more", string>} Palette
 *
 * @typedef {object} Scene The drawn part of a graph.
 * @property {Graph} graph
 * @property {Frame} frame
 * @property {Palette} palette
 * @property {Uint8Array} visible
 * @property {Drawn[]} edges Strongest first.
 * @property {Map<number, number> | null} near Highlighted nodes, and their share; null: all.
 * @property {Uint8Array | null} lit Edges that stay lit; null: all.
 * @property {Set<number> | null} ends Nodes at the ends of lit edges, while no node is clicked.
 * @property {number | null} clicked
 * @property {number | null} cursor
 * @property {Set<number>} pinned
 * @property {Set<number> | null} wanted Nodes that a search found.
 * @property {number} most Influence of the largest node.
 * @property {Float64Array | null} difference More (1) or less (-1) than in the other graph, or before an intervention.
 * @property {Int32Array | null} matched The same node in the other graph, or -1.
 * @property {Float64Array | null} crossed 1 for nodes that an intervention brought to zero.
 * @property {Named[]} groups That are outlined.
 * @property {(row: number) => string} markOf Short text of a node.
 */

const MARGIN = { left: 50, right: 24, bottom: 62, under: 8 };
const LARGEST = 9; // radius in pixels
const SMALLEST = 0.45; // relative to the largest
const SATURATED = 0.4; // share of an input above which its colour is saturated
const RIM = 2; // pixels of paper around a node
const DASH = [5, 4]; // pixels of what makes a head look, and between
const BEHIND = 0.12; // relative strength of other edges while a node is clicked

/**
 * @param {Level} level
 * @param {number} width Of the whole drawing.
 * @param {number} height
 * @param {[number, number, number, number] | null} range
 * @param {number} type
 * @param {number} above
 * @returns {Frame}
 */
function frameOf(level, width, height, range, type, above) {
  const [l, r, b, t] = range ?? FULL;
  const inner = [Math.max(40, width - MARGIN.left - MARGIN.right), Math.max(40, height - above - MARGIN.bottom)];
  return {
    level, type, above, left: MARGIN.left, top: above, width: inner[0], height: inner[1], range: [l, r, b, t],
    unit: [inner[0] / (level.width * (r - l)), inner[1] / (level.height * (t - b))],
  };
}

/** @param {Frame} frame @param {number} x In units. */
const acrossOf = (frame, x) => frame.left + (x - frame.range[0] * frame.level.width) * frame.unit[0];
/** @param {Frame} frame @param {number} y In units. */
const downOf = (frame, y) => frame.top + frame.height - (y - frame.range[2] * frame.level.height) * frame.unit[1];

/** Radius of each marker: its area grows with the influence. @param {Graph} graph @param {Frame} frame @param {number} most */
function radii(graph, frame, most) {
  const room = Math.min(frame.unit[0], frame.unit[1] * lineGap(frame.level));
  const largest = Math.min(LARGEST * frame.type, Math.max(2.2, (room - 1) / 2));
  return graph.arrived.map((arrived) => {
    const part = Math.min(1, arrived / (most || 1));
    return largest * Math.sqrt(SMALLEST ** 2 + (1 - SMALLEST ** 2) * part);
  });
}

/** Largest influence of a node. @param {Graph} graph */
function mostInfluence(graph) {
  let most = 0;
  for (const influence of graph.influence) most = Math.max(most, influence);
  return most;
}

/** @type {WeakMap<Level, number>} */
const lineGaps = new WeakMap();

/** Smallest distance of lines of nodes in units: 1 within a cell, more if no cell has several. @param {Level} level */
function lineGap(level) {
  const known = lineGaps.get(level);
  if (known !== undefined) return known;
  const heights = [...new Set(level.y.filter((y) => !Number.isNaN(y)))].sort((a, b) => a - b);
  // Lines of different columns may be half a unit apart, and do not meet.
  const gap = heights.reduce((least, y, i) => (i ? Math.min(least, Math.max(1, y - heights[i - 1])) : least), Infinity);
  lineGaps.set(level, gap);
  return gap;
}

/** @param {Pen} pen @param {Scene} scene @param {ArrayLike<number>} others Edges behind the highlighted ones, strongest first. */
function drawScene(pen, scene, others) {
  const radius = radii(scene.graph, scene.frame, scene.most);
  pen.within(scene.frame, () => {
    pen.edges(overviewStrokes(scene, others), scene.palette.paper);
    pen.edges(highlightedStrokes(scene), scene.palette.paper);
  });
  drawHulls(pen, scene, radius);
  drawNodes(pen, scene, radius);
  drawLabels(pen, scene, radius);
}

/** @param {Pen} pen @param {Scene} scene @param {Float64Array} radius */
function drawNodes(pen, scene, radius) {
  const { graph, frame, palette, visible, clicked, cursor, pinned, wanted } = scene;
  const order = Array.from(graph.names.keys()).filter((n) => visible[n] && isInside(frame, n));
  order.sort((a, b) => Number(isHighlighted(scene, a)) - Number(isHighlighted(scene, b)));
  for (const n of order) {
    const [x, y, r] = [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n]), radius[n]];
    const out = standsOut(scene, n);
    if (wanted?.has(n)) pen.marker(KIND.feature, x, y, r + 4, "none", palette.cursor, 1.5);
    if (out) pen.marker(graph.kind[n], x, y, r + Math.min(RIM, r / 2), palette.paper, palette.paper, 0); // edges end beside it
    if (pinned.has(n)) pen.marker(graph.kind[n], x, y, r + 2.5, out ? palette.pin : "none", palette.pin, 1.5, out ? 1 : 0.4);
    const { fill, outline } = coloursOf(scene, n);
    if (scene.matched && scene.matched[n] >= 0) pen.marker(graph.kind[n], x, y, r + 1.5, palette.paper, palette.ink, 1, out ? 1 : 0.13);
    pen.marker(graph.kind[n], x, y, r, fill, outline, Math.min(1.2, r / 3), out ? 1 : 0.13);
    if (scene.crossed?.[n]) pen.line(`M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`, { color: palette.ink, width: 1.4, opacity: out ? 1 : 0.13 });
    if (n === clicked) pen.marker(KIND.feature, x, y, r + 5, "none", palette.ink, 1.8);
    if (n === cursor) pen.marker(KIND.feature, x, y, r + 5, "none", palette.cursor, 2.2);
  }
}

/** Whether a node is connected to the clicked one or at the end of a lit edge, if there are any. @param {Scene} scene @param {number} n */
function isHighlighted({ near, ends, clicked }, n) {
  return near ? n === clicked || near.has(n) : !ends || ends.has(n);
}

/** Whether a node is not dimmed. @param {Scene} scene @param {number} n */
function standsOut(scene, n) {
  return isHighlighted(scene, n) && (!scene.wanted || scene.wanted.has(n));
}

/** Names of the colours of kinds. @type {Record<number, string>} */
const COLOURED = { 0: "token", 1: "token", 2: "bias", 3: "feature", 4: "error", 5: "target", 6: "target", 10: "head" };

/** @param {Scene} scene @param {number} n */
function coloursOf({ graph, palette, near, clicked, difference }, n) {
  const share = n === clicked ? undefined : near?.get(n);
  if (share !== undefined) {
    const part = 0.25 + 0.75 * Math.min(1, Math.abs(share) / SATURATED);
    const sign = share < 0 ? palette.negative : palette.positive;
    return { fill: mixed(palette.paper, sign, part), outline: sign };
  }
  if (difference && !near && !Number.isNaN(difference[n])) {
    const value = difference[n];
    return { fill: mixed(palette.same, value < 0 ? palette.less : palette.more, Math.abs(value)), outline: palette.grey };
  }
  return kindColours(palette, graph.kind[n], strengthOf(graph, n));
}

/** Colours of a kind of node. @param {Palette} palette @param {number} kind @param {number} strength */
function kindColours(palette, kind, strength) {
  const own = mixed(palette.paper, palette[/** @type {keyof Palette} */ (COLOURED[kind])], strength);
  const open = kind === KIND.error || kind === KIND.position;
  return open ? { fill: palette.paper, outline: own } : { fill: own, outline: kind === KIND.bias ? own : palette.paper };
}

/** Whether the other edges are behind some that are highlighted, or nodes that are found. @param {Scene} scene */
function isBehind({ near, ends, wanted }) {
  return near !== null || ends !== null || wanted !== null;
}

/** Whether a node is in the visible part. @param {Frame} frame @param {number} n */
function isInside(frame, n) {
  const [x, y] = [frame.level.x[n] / frame.level.width, frame.level.y[n] / frame.level.height];
  const [l, r, b, t] = frame.range;
  return x >= l && x <= r && y >= b && y <= t;
}

/** A colour between two. @param {string} from @param {string} to @param {number} part */
function mixed(from, to, part) {
  const channels = (/** @type {string} */ color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const [a, b] = [channels(from), channels(to)];
  return `#${a.map((value, i) => Math.round(value + (b[i] - value) * part).toString(16).padStart(2, "0")).join("")}`;
}

/** Whether there is a pale band behind a row. @param {number} row */
function isPale(row) {
  return row % 2 === 1;
}

/** Colour behind a place. @param {Frame} frame @param {Palette} palette @param {number} down In pixels. */
function groundAt(frame, palette, down) {
  const { rowY, rowHeight } = frame.level;
  const row = rowY.findIndex((y, i) => Math.abs(downOf(frame, y) - down) <= (rowHeight[i] * frame.unit[1]) / 2);
  return row >= 0 && isPale(row) ? palette.pale : palette.paper;
}

/** Tokens below, layers at the left, pale bands between. @param {Pen} pen @param {Scene} scene */
function drawAxes(pen, { graph, frame, palette }) {
  const { level } = frame;
  const [right, bottom] = [frame.left + frame.width, frame.top + frame.height];
  level.rows.forEach((name, row) => {
    const y = downOf(frame, level.rowY[row]);
    const high = level.rowHeight[row] * frame.unit[1];
    const top = Math.max(frame.top, y - high / 2);
    const under = Math.min(bottom, y + high / 2);
    if (isPale(row) && under > top) pen.box(frame.left, top, frame.width, under - top, palette.pale);
    const often = Math.ceil((14 * frame.type) / high);
    if (y < frame.top || y > bottom || (row % often && row !== level.rows.length - 1)) return;
    pen.text(name, frame.left - 8, y, { color: palette.grey, size: 11 * frame.type, anchor: "end" });
  });
  drawTokens(pen, graph, frame, palette, bottom, right);
}

/**
 * @param {Pen} pen
 * @param {Graph} graph
 * @param {Frame} frame
 * @param {Palette} palette
 * @param {number} bottom
 * @param {number} right
 */
function drawTokens(pen, graph, frame, palette, bottom, right) {
  const { level } = frame;
  const texts = Array.from(level.columns, (column) => {
    const pos = level.columnOf && column >= 0 ? level.columnOf.indexOf(column) : column;
    return column < 0 ? "bias" : pos < 0 ? "" : shortened(tokenAt(graph, pos), 14);
  });
  const room = Array.from(level.columnWidth, (width) => width * frame.unit[0]);
  const slanted = texts.some((text, column) => widthOf(text, 12 * frame.type) + 2 > room[column]);
  const places = Array.from(level.columnX, (x) => acrossOf(frame, x));
  const seen = texts.map((_, column) => column).filter((column) => texts[column] && places[column] >= frame.left && places[column] <= right);
  const last = places[seen[seen.length - 1]];
  const gap = 17 * frame.type; // a line of type, slanted
  let free = -Infinity;
  texts.forEach((text, column) => {
    const x = places[column];
    const edge = x + room[column] / 2;
    if (column < texts.length - 1 && edge > frame.left && edge < right) {
      pen.line(`M${edge.toFixed(1)} ${frame.top}V${bottom}`, { color: palette.grey, width: 0.5, opacity: 0.25 });
    }
    if (x < frame.left || x > right || (slanted && (x < free || (x < last && x > last - gap)))) return;
    free = x + gap;
    if (slanted) pen.text(text, x + 3, bottom + 9, { color: palette.ink, size: 12 * frame.type, anchor: "end", angle: -40 });
    else pen.text(text, x, bottom + 14, { color: palette.ink, size: 12 * frame.type, anchor: "middle" });
  });
}
