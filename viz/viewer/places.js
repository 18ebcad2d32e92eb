// @ts-check
// Places: layout of the boxes of a subgraph in the available room.
"use strict";

/** @typedef {{x: number, y: number}} Spot The middle of a box; y runs downwards. */

const BOX = { width: 150, height: 58, wide: 132, high: 34 }; // room for each, and its size
const LEAST_HEIGHT = 44; // of a line, if many layers must fit
const READABLE = 0.8; // scale above which each layer has its own line
const SMALLEST_SCALE = 0.4; // below it the subgraph scrolls
const SPREADS = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0]; // boxes from one token to the next

/**
 * Places of parts: later layers higher, later tokens further right, without overlaps.  If there
 * are too many lines for this room, neighbouring layers share one.
 * @param {Graph} graph
 * @param {Part[]} parts
 * @param {number} width Of the room.
 * @param {number} height
 * @returns {Spot[]}
 */
function placesOf(graph, parts, width, height) {
  const mean = (/** @type {number[]} */ values) => values.reduce((a, b) => a + b, 0) / values.length;
  const depth = parts.map(({ rows }) => Math.round(mean(rows.map((row) => depthOf(graph, row)))));
  const along = parts.map(({ rows }) => mean(rows.map((row) => graph.pos[row])));
  const columns = [...new Set(along)].sort((a, b) => a - b);
  const layers = [...new Set(depth)].sort((a, b) => b - a);
  const numbers = [...parts.keys()].sort((a, b) => along[a] - along[b] || a - b);
  const found = linesFor(layers.map((layer) => numbers.filter((part) => depth[part] === layer)), width, height, layers[0] > graph.nLayers ? 1 : 0);
  const lines = found.map((line) => numbers.filter((part) => line.includes(part)));
  const scale = scaleOf(lines, width, height);
  const high = Math.min(BOX.height, Math.max(LEAST_HEIGHT, height / scale / lines.length));
  const across = SPREADS.map((spread) => inLine(lines, (part) => columns.indexOf(along[part]) * spread)).find((all) => widthNeeded(all) * scale <= width);
  const x = across ?? inLine(lines, () => 0);
  const left = Math.min(...x.flat()) - BOX.width / 2;
  const spots = parts.map(() => ({ x: 0, y: 0 }));
  lines.forEach((line, number) => line.forEach((part, place) => (spots[part] = { x: x[number][place] - left, y: (number + 0.5) * high })));
  return spots;
}

/** Centres of the boxes of each line, each at its wanted place or right of the previous one. @param {number[][]} lines @param {(part: number) => number} wanted In widths of a box. */
function inLine(lines, wanted) {
  return lines.map((line) => {
    let end = -Infinity;
    return line.map((part) => (end = Math.max((wanted(part) + 0.5) * BOX.width, end + BOX.width)));
  });
}

/** @param {number[][]} x */
function widthNeeded(x) {
  return Math.max(...x.flat()) - Math.min(...x.flat()) + BOX.width;
}

/** Lines of one or several neighbouring layers, as many as are readable. @param {number[][]} layers Parts of each. @param {number} width @param {number} height @param {number} alone Lines at the top that are not merged: those of predictions. */
function linesFor(layers, width, height, alone) {
  let best = layers;
  for (let count = layers.length; count > 1 && scaleOf(best, width, height) < READABLE; count--) {
    const joined = joinedTo(layers, count - 1, alone);
    if (scaleOf(joined, width, height) > scaleOf(best, width, height)) best = joined;
  }
  return best;
}

/** Merge neighbouring lines with the fewest parts until there are `count`. @param {number[][]} layers @param {number} count @param {number} alone */
function joinedTo(layers, count, alone) {
  const lines = [...layers];
  while (lines.length > Math.max(count, alone + 1)) {
    const sizes = lines.slice(alone + 1).map((line, above) => line.length + lines[alone + above].length);
    const at = alone + sizes.indexOf(Math.min(...sizes));
    lines.splice(at, 2, [...lines[at], ...lines[at + 1]]);
  }
  return lines;
}

/** Scale at which boxes in these lines fit. @param {number[][]} lines @param {number} width @param {number} height */
function scaleOf(lines, width, height) {
  const longest = Math.max(...lines.map((line) => line.length));
  return fitting({ width: longest * BOX.width, height: lines.length * LEAST_HEIGHT }, width, height);
}

/** @param {{width: number, height: number}} size @param {number} width @param {number} height */
function fitting(size, width, height) {
  return Math.max(SMALLEST_SCALE, Math.min(1, width / size.width, height / size.height));
}

/** Layer of a node, inputs below and targets above all. @param {Graph} graph @param {number} row */
function depthOf(graph, row) {
  if (isInput(graph, row)) return -1;
  return isTarget(graph, row) ? graph.nLayers + 1 : graph.layer[row];
}
