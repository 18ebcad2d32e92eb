// @ts-check
// Labels: short texts next to the strongest nodes, placed without overlaps.
"use strict";

const LETTERS = 11; // size of the type
const OUTPUT_LETTERS = 12; // the same above predictions
const FEW = 3; // predictions with flat labels; labels of more predictions are steeper
const ROOM = 26_000; // square pixels for each label
const DIMMED = 0.35; // of the ink, for predictions that are dimmed
const SIDES = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]]; // right, down

/** @typedef {[number, number, number, number]} Box4 Left, top, right, bottom. */

/** @param {Pen} pen @param {Scene} scene @param {Float64Array} radius */
function drawLabels(pen, scene, radius) {
  const { graph, frame, palette } = scene;
  const nodes = Array.from(graph.names.keys()).filter((n) => scene.visible[n] && isInside(frame, n));
  const boxes = nodes.map((n) => /** @type {Box4} */ (around4(frame, n, radius[n])));
  const taken = boxIndex(boxes);
  drawHullNames(pen, scene, radius, taken);
  drawOutputs(pen, scene, radius, nodes.filter((n) => isTarget(graph, n)));
  for (const n of labelled(scene, nodes)) {
    const text = shortened(scene.markOf(n), 30);
    const size = LETTERS * frame.type;
    const box = text && freeBox(frame, around4(frame, n, radius[n]), widthOf(text, size), size + 3, taken);
    if (!box) continue;
    taken.add(box);
    const [across, down] = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
    pen.box(box[0] - 1, box[1], box[2] - box[0] + 2, box[3] - box[1], groundAt(frame, palette, down)); // no edge strikes it through
    pen.text(text, across, down, { color: palette.ink, size, anchor: "middle" });
  }
}

/** Nodes by priority of their labels: clicked, connected, pinned, strongest. @param {Scene} scene @param {number[]} nodes */
function labelled(scene, nodes) {
  const { graph, frame, near, clicked, cursor, pinned, markOf } = scene;
  const weight = (/** @type {number} */ n) => {
    if (n === clicked || n === cursor) return 10;
    if (!standsOut(scene, n)) return -1;
    if (near) return 2 + Math.abs(near.get(n) ?? 0);
    return (pinned.has(n) ? 3 : 0) + (graph.kind[n] === KIND.feature || graph.kind[n] === KIND.head ? graph.arrived[n] : -1);
  };
  const most = Math.ceil((frame.width * frame.height) / ROOM / frame.type ** 2);
  const ranked = nodes.filter((n) => !isTarget(graph, n) && weight(n) > 0 && markOf(n));
  return ranked.sort((a, b) => weight(b) - weight(a)).slice(0, most);
}

/** Pixels above a graph for the labels of its predictions. @param {Graph} graph */
function roomAbove(graph) {
  return graph.names.filter((_, row) => isTarget(graph, row)).length > FEW ? 88 : 54;
}

/** Slanted labels above the predictions, fanned out where predictions are close. @param {Pen} pen @param {Scene} scene @param {Float64Array} radius @param {number[]} targets */
function drawOutputs(pen, scene, radius, targets) {
  const { graph, frame, palette, markOf } = scene;
  const size = OUTPUT_LETTERS * frame.type;
  const angle = targets.length > FEW ? Math.PI / 4 : Math.PI / 8;
  const gap = (size + 2) / Math.sin(angle);
  const probable = [...targets].sort((a, b) => graph.seed[b] - graph.seed[a]).slice(0, Math.floor(frame.width / gap));
  if (!probable.length) return;
  const marks = probable.map((n) => ({ n, x: acrossOf(frame, frame.level.x[n]), y: downOf(frame, frame.level.y[n]) - radius[n] - 4 }));
  marks.sort((a, b) => a.x - a.y - (b.x - b.y)); // from the left, and of those above each other the lowest first
  const crowded = marks.some(({ x }, i) => i && x - marks[i - 1].x < gap);
  const line = Math.min(...marks.map(({ y }) => y)) - (crowded ? size / 2 : 0);
  const longest = (line - (frame.top - frame.above)) / Math.sin(angle) - size / 2;
  const texts = marks.map(({ n }) => fitted(markOf(n), size, longest));
  const ends = texts.map((text) => frame.left + frame.width + MARGIN.right - size / 2 - widthOf(text, size) * Math.cos(angle));
  const places = fanned(marks.map(({ x }) => x), ends, gap, frame.left);
  marks.forEach(({ x, y }, i) => {
    if (crowded) pen.line(`M${places[i].toFixed(1)} ${line.toFixed(1)}L${x.toFixed(1)} ${(y + 2).toFixed(1)}`, { color: palette.grey, width: 0.8 });
  });
  marks.forEach(({ n }, i) => {
    const color = standsOut(scene, n) ? palette.ink : mixed(palette.paper, palette.ink, DIMMED);
    pen.text(texts[i], places[i], line - 2, { color, size, angle: (-angle * 180) / Math.PI, bold: n === probable[0], halo: palette.paper });
  });
}

/**
 * Places near the wanted ones, in their order, at least a gap apart and before their ends.
 * @param {number[]} wanted
 * @param {number[]} ends
 * @param {number} gap
 * @param {number} left
 */
function fanned(wanted, ends, gap, left) {
  const places = wanted.map((place, i) => Math.min(place, ends[i]));
  for (let i = places.length - 2; i >= 0; i--) places[i] = Math.min(places[i], places[i + 1] - gap);
  places.forEach((place, i) => (places[i] = Math.max(place, i ? places[i - 1] + gap : left)));
  return places;
}

/** The longest beginning of a text that fits a width. @param {string} text @param {number} size @param {number} width */
function fitted(text, size, width) {
  let length = 28;
  while (length > 2 && widthOf(shortened(text, length), size) > width) length--;
  return shortened(text, length);
}

/** @param {Frame} frame @param {number} n @param {number} r @returns {Box4} */
function around4(frame, n, r) {
  const [x, y] = [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n])];
  return [x - r, y - r, x + r, y + r];
}

/**
 * @param {Frame} frame
 * @param {Box4} marker
 * @param {number} width
 * @param {number} high
 * @param {{hits: (box: Box4) => boolean}} taken
 * @returns {Box4 | null}
 */
function freeBox(frame, [left, top, right, bottom], width, high, taken) {
  for (const [across, down] of SIDES) {
    const x = across > 0 ? right + 3 : across < 0 ? left - 3 - width : (left + right - width) / 2;
    const y = down > 0 ? bottom + 1 : down < 0 ? top - 1 - high : (top + bottom - high) / 2;
    /** @type {Box4} */
    const box = [x, y, x + width, y + high];
    const inside = x >= frame.left && box[2] <= frame.left + frame.width + 20 && y >= frame.top && box[3] <= frame.top + frame.height;
    if (inside && !taken.hits(box)) return box;
  }
  return null;
}

/** An index of boxes to test for overlaps. @param {Box4[]} boxes */
function boxIndex(boxes) {
  const cell = 40;
  /** @type {Map<string, Box4[]>} */
  const cells = new Map();
  const each = (/** @type {Box4} */ [l, t, r, b], /** @type {(key: string) => void} */ visit) => {
    for (let x = Math.floor(l / cell); x <= Math.floor(r / cell); x++) {
      for (let y = Math.floor(t / cell); y <= Math.floor(b / cell); y++) visit(`${x},${y}`);
    }
  };
  const index = {
    /** @param {Box4} box */
    add(box) {
      each(box, (key) => cells.set(key, [...(cells.get(key) ?? []), box]));
    },
    /** @param {Box4} box */
    hits(box) {
      let hit = false;
      each(box, (key) => {
        hit ||= (cells.get(key) ?? []).some(([l, t, r, b]) => l < box[2] && r > box[0] && t < box[3] && b > box[1]);
      });
      return hit;
    },
  };
  boxes.forEach(index.add);
  return index;
}
