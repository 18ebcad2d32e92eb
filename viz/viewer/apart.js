// @ts-check
// Apart: edges of two signs whose colours never mix.
// Strokes are opaque, paler where an edge is weaker, and come weakest first.  On a canvas each sign
// has a layer of its own, and an edge is cut out of the other sign's layer with a gap beside it, so
// that no pixel has both.  In SVG an edge has a wider stroke of paper beneath it.
"use strict";

/**
 * @typedef {number[]} Curve x and y of both ends and, between them, of both control points.
 * @typedef {{curve: Curve, color: string, width: number, negative: boolean, dash?: number[]}} EdgeStroke
 */

const GAP = 1.5; // pixels beside an edge that lies over one of the other sign
const TIER = 12; // edges of about one strength in SVG: of these, negative ones are beneath positive ones

/** Two layers in which edges of a canvas are drawn before they are shown there. */
function signLayers() {
  const layers = [0, 1].map(() => /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d")));
  return {
    /** Empty layers for a canvas. @param {CanvasRenderingContext2D} context */
    begin(context) {
      for (const layer of layers) {
        [layer.canvas.width, layer.canvas.height] = [context.canvas.width, context.canvas.height];
        layer.setTransform(context.getTransform());
        layer.lineCap = "round";
      }
    },
    /** @param {EdgeStroke} stroke */
    add({ curve, color, width, negative, dash = [] }) {
      const [own, other] = negative ? [layers[1], layers[0]] : layers;
      other.globalCompositeOperation = "destination-out";
      strokeAlong(other, curve, width + 2 * GAP);
      own.globalCompositeOperation = "source-over";
      own.strokeStyle = color;
      if (dash.length) own.setLineDash(dash);
      strokeAlong(own, curve, width);
      if (dash.length) own.setLineDash([]);
    },
    /** @param {CanvasRenderingContext2D} context */
    show(context) {
      context.save();
      context.resetTransform();
      for (const layer of layers) context.drawImage(layer.canvas, 0, 0);
      context.restore();
    },
  };
}

/** @param {CanvasRenderingContext2D} context @param {Curve} curve @param {number} width */
function strokeAlong(context, [x0, y0, ax, ay, bx, by, x1, y1], width) {
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(x0, y0);
  context.bezierCurveTo(ax, ay, bx, by, x1, y1);
  context.stroke();
}

/** Strokes of an SVG file in its order, with those of paper. @param {EdgeStroke[]} strokes Weakest first. @param {string} paper @returns {EdgeStroke[]} */
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
