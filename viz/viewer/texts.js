// @ts-check
// Texts: tokens, shortened texts, and their width.
"use strict";

/** The prompt's token, without blanks around it. @param {Graph} graph @param {number} pos */
function tokenAt(graph, pos) {
  return graph.tokens[pos].trim() || graph.tokens[pos];
}

/** @param {string} text @param {number} length */
function shortened(text, length) {
  const letters = Array.from(text);
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : text;
}

/** @type {CanvasRenderingContext2D | null} */
let ruler = null;

/** Width of a text in pixels. @param {string} text @param {number} size */
function widthOf(text, size) {
  ruler ??= document.createElement("canvas").getContext("2d");
  if (!ruler) return text.length * size * 0.57;
  ruler.font = `${size}px ${FONT}`;
  return ruler.measureText(text).width;
}
