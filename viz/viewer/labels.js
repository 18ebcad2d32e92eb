// @ts-check
// Labels: short texts beside the strongest nodes, each where it covers nothing, or nowhere.
"use strict";

const LETTERS = 11; // size of the type
const ROOM = 26_000; // square pixels for each label
const SIDES = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]]; // right, down

/** @typedef {[number, number, number, number]} Box Left, top, right, bottom. */

/** @param {Pen} pen @param {Scene} scene @param {Float64Array} radius */
function drawLabels(pen, scene, radius) {
  const { graph, frame, palette } = scene;
  const nodes = Array.from(graph.names.keys()).filter((n) => scene.visible[n] && isInside(frame, n));
  const boxes = nodes.map((n) => /** @type {Box} */ (around4(frame, n, radius[n])));
  const taken = boxIndex(boxes);
  drawOutputs(pen, scene, radius, nodes.filter((n) => isTarget(graph, n)));
  for (const n of labelled(scene, nodes)) {
    const text = shortened(scene.says(n), 26);
    const size = LETTERS * frame.type;
    const box = text && freeBox(frame, around4(frame, n, radius[n]), widthOf(text, size), size + 3, taken);
    if (!box) continue;
    taken.add(box);
    pen.text(text, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, { color: palette.ink, size, anchor: "middle", halo: palette.paper });
  }
}

/** Nodes whose labels come first: what was clicked, what is near it, pins, then the strongest. @param {Scene} scene @param {number[]} nodes */
function labelled({ graph, frame, near, clicked, cursor, pinned, says }, nodes) {
  const weight = (/** @type {number} */ n) => {
    if (n === clicked || n === cursor) return 10;
    if (near) return near.has(n) ? 2 + Math.abs(near.get(n) ?? 0) : -1;
    return (pinned.has(n) ? 3 : 0) + (graph.kind[n] === KIND.feature ? graph.arrived[n] : -1);
  };
  const most = Math.ceil((frame.width * frame.height) / ROOM / frame.type ** 2);
  const ranked = nodes.filter((n) => !isTarget(graph, n) && weight(n) > 0 && says(n));
  return ranked.sort((a, b) => weight(b) - weight(a)).slice(0, most);
}

/** Slanted texts over the predictions, the more probable first. @param {Pen} pen @param {Scene} scene @param {Float64Array} radius @param {number[]} targets */
function drawOutputs(pen, { graph, frame, palette, says }, radius, targets) {
  const angle = targets.length > 3 ? -45 : -22;
  /** @type {number[]} */
  const used = [];
  for (const n of targets.sort((a, b) => graph.seed[b] - graph.seed[a])) {
    const [x, y] = [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n]) - radius[n] - 4];
    if (used.some((other) => Math.abs(other - x) < 18 * frame.type)) continue;
    used.push(x);
    pen.text(shortened(says(n), 24), x, y, { color: palette.ink, size: 12 * frame.type, angle, bold: used.length === 1, halo: palette.paper });
  }
}

/** @param {Frame} frame @param {number} n @param {number} r @returns {Box} */
function around4(frame, n, r) {
  const [x, y] = [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n])];
  return [x - r, y - r, x + r, y + r];
}

/**
 * @param {Frame} frame
 * @param {Box} marker
 * @param {number} width
 * @param {number} high
 * @param {{hits: (box: Box) => boolean}} taken
 * @returns {Box | null}
 */
function freeBox(frame, [left, top, right, bottom], width, high, taken) {
  for (const [across, down] of SIDES) {
    const x = across > 0 ? right + 3 : across < 0 ? left - 3 - width : (left + right - width) / 2;
    const y = down > 0 ? bottom + 1 : down < 0 ? top - 1 - high : (top + bottom - high) / 2;
    /** @type {Box} */
    const box = [x, y, x + width, y + high];
    const inside = x >= frame.left && box[2] <= frame.left + frame.width + 20 && y >= frame.top && box[3] <= frame.top + frame.height;
    if (inside && !taken.hits(box)) return box;
  }
  return null;
}

/** Boxes that can be asked whether one lies in their way. @param {Box[]} boxes */
function boxIndex(boxes) {
  const cell = 40;
  /** @type {Map<string, Box[]>} */
  const cells = new Map();
  const each = (/** @type {Box} */ [l, t, r, b], /** @type {(key: string) => void} */ visit) => {
    for (let x = Math.floor(l / cell); x <= Math.floor(r / cell); x++) {
      for (let y = Math.floor(t / cell); y <= Math.floor(b / cell); y++) visit(`${x},${y}`);
    }
  };
  const index = {
    /** @param {Box} box */
    add(box) {
      each(box, (key) => cells.set(key, [...(cells.get(key) ?? []), box]));
    },
    /** @param {Box} box */
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
