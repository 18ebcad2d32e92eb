// @ts-check
// Edges: where they run, and how strong they look.
"use strict";

const FLAT = 3; // pixels up or down below which an edge runs within one row
const DIP = 24; // pixels, at most, that it runs below the row, beside nodes and labels
const SHADES = 40; // between paper and a colour

/** Curve of an edge. @param {Frame} frame @param {number} source @param {number} target @returns {Curve} */
function curveOf(frame, source, target) {
  const { x, y } = frame.level;
  const [x0, y0] = [acrossOf(frame, x[source]), downOf(frame, y[source])];
  const [x1, y1] = [acrossOf(frame, x[target]), downOf(frame, y[target])];
  if (Math.abs(y0 - y1) < FLAT) {
    const dip = Math.min(DIP * frame.type, 0.5 * frame.unit[1] * lowestRow(frame.level));
    return [x0, y0, x0, y0 + dip, x1, y1 + dip, x1, y1];
  }
  const bow = Math.min(30, 0.08 * (y0 - y1)) * Math.exp(-Math.abs(x1 - x0) / 40);
  return [x0, y0, x0 + bow, y0 + (y1 - y0) * 0.4, x1 + bow, y1 - (y1 - y0) * 0.4, x1, y1];
}

/** Height of the lowest row in units. @param {Level} level */
function lowestRow({ rowHeight }) {
  return rowHeight.reduce((least, height) => Math.min(least, height), Infinity);
}

/** @param {Curve} curve */
function pathOf(curve) {
  const [x0, y0, ...others] = curve.map((value) => value.toFixed(1));
  return `M${x0} ${y0}C${others.join(" ")}`;
}

/** Influence along an edge. @param {Graph} graph @param {number} edge */
function influenceAlong({ arrived, target, share }, edge) {
  return arrived[target[edge]] * Math.abs(share[edge]);
}

/**
 * Stroke of an edge while no node is clicked: wider and stronger with the influence along it.
 * @param {Scene} scene
 * @param {number} edge
 * @param {number} most Influence along the strongest edge.
 * @returns {EdgeStroke}
 */
function overviewStroke(scene, edge, most) {
  const { graph, frame, palette } = scene;
  const part = Math.sqrt(influenceAlong(graph, edge) / (most || 1));
  const negative = graph.share[edge] < 0;
  return {
    curve: curveOf(frame, graph.source[edge], graph.target[edge]), negative, width: 0.7 + 2.5 * part,
    color: shade(palette.paper, negative ? palette.negative : palette.positive, (0.18 + 0.82 * part ** 0.7) * edgeStrength(graph, edge) * (isBehind(scene) ? BEHIND : 1)),
  };
}

/**
 * Strokes of some edges while no node is clicked, weakest first.
 * @param {Scene} scene
 * @param {ArrayLike<number>} edges Strongest first.
 * @param {number} first
 * @param {number} last
 */
function overviewStrokes(scene, edges, first = 0, last = edges.length) {
  const most = edges.length ? influenceAlong(scene.graph, edges[0]) : 0;
  const strokes = [];
  for (let i = Math.min(last, edges.length) - 1; i >= first; i--) strokes.push(overviewStroke(scene, edges[i], most));
  return strokes;
}

/** Strokes of highlighted edges, weakest first: wider and stronger with the share of what the target gets. @param {Scene} scene @returns {EdgeStroke[]} */
function highlightedStrokes({ frame, edges, palette, lit, wanted }) {
  return edges.map(({ source, target, share, edge, dashed }) => {
    const part = Math.sqrt(Math.min(1, Math.abs(share) / SATURATED));
    const behind = (lit && edge >= 0 && !lit[edge]) || (wanted && !wanted.has(source) && !wanted.has(target));
    const opacity = behind ? BEHIND : 1;
    return {
      curve: curveOf(frame, source, target), negative: share < 0, dash: dashed ? DASH : undefined,
      width: Math.max(0.7, (dashed ? 2.5 : 4) * part), color: shade(palette.paper, share < 0 ? palette.negative : palette.positive, (0.35 + 0.65 * part) * opacity),
    };
  }).reverse();
}

/** @type {Map<string, string>} */
const shades = new Map();

/** One of few shades between paper and a colour. @param {string} paper @param {string} color @param {number} part */
function shade(paper, color, part) {
  const step = Math.round(part * SHADES);
  const key = `${paper}${color}${step}`;
  const known = shades.get(key) ?? mixed(paper, color, step / SHADES);
  shades.set(key, known);
  return known;
}
