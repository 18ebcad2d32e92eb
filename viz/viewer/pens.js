// @ts-check
// Pens: one drawing interface for canvas and SVG.
"use strict";

/**
 * @typedef {{color: string, width: number, opacity?: number, dash?: number[]}} Stroke dash: lengths of strokes and gaps.
 * @typedef {object} Pen
 * @property {(path: string, stroke: Stroke) => void} line Along a path, without filling it.
 * @property {(strokes: EdgeStroke[], paper: string) => void} edges Weakest first.
 * @property {(kind: number, x: number, y: number, radius: number, fill: string, outline: string,
 *   width: number, opacity?: number) => void} marker
 * @property {(text: string, x: number, y: number, style: TextStyle) => void} text
 * @property {(x: number, y: number, width: number, height: number, fill: string) => void} box
 * @property {(area: Area, draw: () => void) => void} within Draw, clipped to an area.
 * @typedef {{left: number, top: number, width: number, height: number}} Area
 * @typedef {{color: string, size: number, anchor?: "start" | "middle" | "end", angle?: number,
 *   halo?: string, bold?: boolean}} TextStyle
 */

const FONT = '"Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif';

/** Outline of a marker around 0, by kind: shapes of about the same area. */
const CIRCLE = () => "M-1 0A1 1 0 1 1 1 0A1 1 0 1 1 -1 0Z";
const SHAPES = [
  polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]), // token: square
  polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]), // position: open square
  polygon([[0, -1.15], [1.1, 0.8], [-1.1, 0.8]]), // bias: triangle
  CIRCLE, // feature
  polygon([[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]]), // error: diamond
  star(5, 1.3, 0.62), // logit: star
  polygon(Array.from({ length: 6 }, (_, i) => around((i * Math.PI) / 3, 1.1))), // target: hexagon
  CIRCLE, CIRCLE, CIRCLE, // norms and gates are never drawn
  polygon([[0, 1.25], [1.2, -0.87], [-1.2, -0.87]]), // head: triangle that points down
];

/** @param {number} angle @param {number} radius @returns {[number, number]} */
function around(angle, radius) {
  return [radius * Math.sin(angle), -radius * Math.cos(angle)];
}

/** @param {number} points @param {number} outer @param {number} inner */
function star(points, outer, inner) {
  return polygon(Array.from({ length: 2 * points }, (_, i) => around((i * Math.PI) / points, i % 2 ? inner : outer)));
}

/** @param {number[][]} corners */
function polygon(corners) {
  return () => `M${corners.map(([x, y]) => `${x.toFixed(3)} ${y.toFixed(3)}`).join("L")}Z`;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @returns {Pen}
 */
function canvasPen(context) {
  const shapes = SHAPES.map((shape) => new Path2D(shape()));
  return {
    edges(strokes, paper) {
      for (const { curve: [x0, y0, ax, ay, bx, by, x1, y1], color, width, dash } of overPaper(strokes, paper)) {
        if (dash) context.setLineDash(dash);
        [context.strokeStyle, context.lineWidth] = [color, width];
        context.beginPath();
        context.moveTo(x0, y0);
        context.bezierCurveTo(ax, ay, bx, by, x1, y1);
        context.stroke();
        if (dash) context.setLineDash([]);
      }
    },
    line(path, { color, width, opacity = 1, dash = [] }) {
      context.setLineDash(dash);
      context.globalAlpha = opacity;
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke(new Path2D(path));
      context.setLineDash([]);
      context.globalAlpha = 1;
    },
    marker(kind, x, y, radius, fill, outline, width, opacity = 1) {
      context.save();
      context.globalAlpha = opacity;
      context.translate(x, y);
      context.scale(radius, radius);
      if (fill !== "none") {
        context.fillStyle = fill;
        context.fill(shapes[kind]);
      }
      if (width) {
        context.lineWidth = width / radius;
        context.strokeStyle = outline;
        context.stroke(shapes[kind]);
      }
      context.restore();
    },
    text(text, x, y, { color, size, anchor = "start", angle = 0, halo, bold }) {
      context.save();
      context.translate(x, y);
      context.rotate((angle * Math.PI) / 180);
      context.font = `${bold ? "600 " : ""}${size}px ${FONT}`;
      context.textAlign = anchor === "middle" ? "center" : anchor;
      context.textBaseline = "middle";
      if (halo) {
        context.strokeStyle = halo;
        context.lineWidth = 3;
        context.lineJoin = "round";
        context.strokeText(text, 0, 0);
      }
      context.fillStyle = color;
      context.fillText(text, 0, 0);
      context.restore();
    },
    box(x, y, width, height, fill) {
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    },
    within({ left, top, width, height }, draw) {
      context.save();
      context.beginPath();
      context.rect(left, top, width, height);
      context.clip();
      draw();
      context.restore();
    },
  };
}

/**
 * A pen that writes an SVG file of this size.
 * @param {number} width
 * @param {number} height
 * @returns {Pen & {file: () => string}}
 */
function svgPen(width, height) {
  /** @type {string[]} */
  const parts = [];
  const short = (/** @type {number} */ value) => String(Math.round(value * 100) / 100);
  /** @type {Pen & {file: () => string}} */
  const pen = {
    edges(strokes, paper) {
      for (const { curve, ...stroke } of overPaper(strokes, paper)) pen.line(pathOf(curve), stroke);
    },
    line(path, { color, width: thick, opacity = 1, dash }) {
      parts.push(`<path d="${path}" fill="none" stroke="${color}" stroke-width="${short(thick)}" opacity="${short(opacity)}"${dash ? ` stroke-dasharray="${dash.join(" ")}"` : ""}/>`);
    },
    marker(kind, x, y, radius, fill, outline, thick, opacity = 1) {
      parts.push(
        `<path d="${SHAPES[kind]()}" transform="translate(${short(x)} ${short(y)}) scale(${short(radius)})" ` +
          `fill="${fill}" stroke="${outline}" stroke-width="${short(thick / radius)}" opacity="${short(opacity)}"/>`,
      );
    },
    text(text, x, y, { color, size, anchor = "start", angle = 0, halo, bold }) {
      const around = halo ? ` stroke="${halo}" stroke-width="3" paint-order="stroke" stroke-linejoin="round"` : "";
      const turned = angle ? ` rotate(${short(angle)})` : "";
      parts.push(
        `<text transform="translate(${short(x)} ${short(y)})${turned}" font-size="${size}" text-anchor="${anchor}" ` +
          `dominant-baseline="central" fill="${color}"${bold ? ' font-weight="600"' : ""}${around}>${escaped(text)}</text>`,
      );
    },
    box(x, y, wide, high, fill) {
      parts.push(`<rect x="${short(x)}" y="${short(y)}" width="${short(wide)}" height="${short(high)}" fill="${fill}"/>`);
    },
    within({ left, top, width: wide, height: high }, draw) {
      const area = [left, top, wide, high].map(short); // a nested svg clips its content
      parts.push(`<svg x="${area[0]}" y="${area[1]}" width="${area[2]}" height="${area[3]}" viewBox="${area.join(" ")}">`);
      draw();
      parts.push("</svg>");
    },
    file: () =>
      `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" ` +
      `font-family="${escaped(FONT)}">\n${parts.join("\n")}\n</svg>\n`,
  };
  return pen;
}

/** Text escaped for HTML and SVG. @param {string} text */
function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
