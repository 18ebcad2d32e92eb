// @ts-check
// Limits: how far one can zoom and pan.
"use strict";

const CLOSEST = 4; // units of the layout that are seen at least
const BEYOND = 0.2; // of what is seen, the part that may lie beside the layout

/** @type {[number, number, number, number]} */
const FULL = [0, 1, 0, 1];

/**
 * A visible part within the limits: not more than all, not less than some nodes have room in, and
 * mostly of the layout.
 * @param {Level} level
 * @param {[number, number, number, number] | null} range Left, right, bottom, top, from 0 to 1.
 * @returns {[number, number, number, number] | null}
 */
function limitedRange(level, range) {
  if (!range) return null;
  const [l, r] = limitedSide(range[0], range[1], CLOSEST / level.width);
  const [b, t] = limitedSide(range[2], range[3], CLOSEST / level.height);
  return [l, r, b, t];
}

/** @param {number} low @param {number} high @param {number} closest */
function limitedSide(low, high, closest) {
  const seen = Math.min(1, Math.max(high - low, closest));
  const first = seen === high - low ? low : (low + high - seen) / 2;
  const from = Math.max(-BEYOND * seen, Math.min(1 + (BEYOND - 1) * seen, first));
  return [from, from === low ? high : from + seen];
}
