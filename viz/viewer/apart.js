// @ts-check
// Apart: edges of two signs whose colours never mix.
// Strokes are opaque, paler where an edge is weaker, and come weakest first.  Beneath each is a
// wider one of paper, so that edges which cross leave a gap, and no pixel has colour of both.
"use strict";

/**
 * @typedef {number[]} Curve x and y of both ends and, between them, of both control points.
 * @typedef {{curve: Curve, color: string, width: number, negative: boolean, dash?: number[]}} EdgeStroke
 */

const GAP = 1.5; // pixels beside an edge that lies over others
const TIER = 12; // edges of about one strength: of these, negative ones are beneath positive ones

/** Strokes in the order in which they are drawn, with those of paper. @param {EdgeStroke[]} strokes Weakest first. @param {string} paper @returns {EdgeStroke[]} */
function overPaper(strokes, paper) {
  const ordered = [];
  for (let first = 0; first < strokes.length; first += TIER) {
    const tier = strokes.slice(first, first + TIER);
    for (const sign of [true, false]) {
      const own = tier.filter(({ negative }) => negative === sign);
      ordered.push(...own.map((one) => ({ ...one, color: paper, width: one.width + 2 * GAP, dash: undefined })), ...own);
    }
  }
  return ordered;
}
