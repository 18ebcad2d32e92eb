// @ts-check
// Hulls: outlines around the members of a group in the plot, with its name once.
"use strict";

/** @typedef {{name: string, rows: number[]}} Named A group and its nodes in the page. */

const AROUND = 7; // pixels from a marker to the outline
const CORNERS = 8; // of the circle around a marker that is enclosed
const HULL = { width: 1, dash: [3, 3] };

/** Groups with their rows: a person's, else the summary's. @param {Graph} graph @param {Notes} notes @returns {Named[]} */
function namedGroups(graph, notes) {
  /** @type {Map<string, number[]>} */
  const found = new Map();
  for (const [row, name] of groupNames(graph, notes)) found.set(name, [...(found.get(name) ?? []), row]);
  return [...found].map(([name, rows]) => ({ name, rows }));
}

/** Outlines of the groups of which nodes are seen. @param {Pen} pen @param {Scene} scene @param {Float64Array} radius */
function drawHulls(pen, scene, radius) {
  for (const { rows } of scene.groups) {
    const corners = hullOf(scene, rows, radius);
    if (corners.length < 3) continue;
    const path = `M${corners.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}Z`;
    pen.line(path, { color: scene.palette.paper, width: HULL.width + 2 }); // no edge shows through
    pen.line(path, { color: scene.palette.grey, ...HULL });
  }
}

/** Corners of the outline around the visible nodes of these. @param {Scene} scene @param {number[]} rows @param {Float64Array} radius @returns {[number, number][]} */
function hullOf({ frame, visible }, rows, radius) {
  const seen = rows.filter((n) => visible[n] && isInside(frame, n));
  const points = seen.flatMap((n) => {
    const [x, y, r] = [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n]), radius[n] + AROUND];
    return Array.from({ length: CORNERS }, (_, corner) => /** @type {[number, number]} */ ([x + r * Math.cos((2 * Math.PI * corner) / CORNERS), y + r * Math.sin((2 * Math.PI * corner) / CORNERS)]));
  });
  return convexHull(points);
}

/** The convex hull of points, by Andrew's monotone chain. @param {[number, number][]} points @returns {[number, number][]} */
function convexHull(points) {
  const sorted = [...points].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  if (sorted.length < 3) return sorted;
  const half = (/** @type {[number, number][]} */ along) => {
    /** @type {[number, number][]} */
    const chain = [];
    for (const point of along) {
      while (chain.length > 1 && turn(chain[chain.length - 2], chain[chain.length - 1], point) <= 0) chain.pop();
      chain.push(point);
    }
    return chain.slice(0, -1);
  };
  return [...half(sorted), ...half(sorted.reverse())];
}

/** Positive if three points turn left. @param {[number, number]} a @param {[number, number]} b @param {[number, number]} c */
function turn(a, b, c) {
  return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
}

/** Names of groups above or below their outlines, where nothing else is. @param {Pen} pen @param {Scene} scene @param {Float64Array} radius @param {{add: (box: Box4) => void, hits: (box: Box4) => boolean}} taken */
function drawHullNames(pen, scene, radius, taken) {
  const { frame, palette } = scene;
  const size = LETTERS * frame.type;
  for (const { name, rows } of scene.groups) {
    const corners = hullOf(scene, rows, radius);
    if (corners.length < 3) continue;
    const text = shortened(name, 28);
    const [left, right] = [Math.min(...corners.map(([x]) => x)), Math.max(...corners.map(([x]) => x))];
    const [top, bottom] = [Math.min(...corners.map(([, y]) => y)), Math.max(...corners.map(([, y]) => y))];
    const half = widthOf(text, size) / 2 + 3;
    const x = Math.max(frame.left + half, Math.min(frame.left + frame.width - half, (left + right) / 2));
    const places = [top - size / 2 - 1, bottom + size / 2 + 1].map((y) => /** @type {Box4} */ ([x - half, y - size / 2 - 1, x + half, y + size / 2 + 1]));
    const free = places.find((box) => box[1] >= frame.top && box[3] <= frame.top + frame.height && !taken.hits(box));
    if (!free) continue;
    taken.add(free);
    const y = (free[1] + free[3]) / 2;
    pen.box(free[0], free[1], free[2] - free[0], free[3] - free[1], groundAt(frame, palette, y));
    pen.text(text, x, y, { color: palette.ink, size, anchor: "middle", bold: true });
  }
}
