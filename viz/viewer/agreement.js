// @ts-check
// Agreement: measured effects of interventions against predicted ones, as a small plot with axes.
"use strict";

const SQUARE = { left: 44, top: 10, size: 140, below: 34, right: 10 }; // pixels

/**
 * @param {Measured[]} compared With predictions.
 * @param {number} most Size of the largest number.
 */
function agreement(compared, most) {
  const { left, top, size, below, right } = SQUARE;
  const across = (/** @type {number} */ value) => left + (size * (1 + value / most)) / 2;
  const down = (/** @type {number} */ value) => top + (size * (1 - value / most)) / 2;
  const text = (/** @type {string} */ words, /** @type {Record<string, any>} */ attributes) => {
    const made = vector("text", attributes);
    made.textContent = words;
    return made;
  };
  const ticks = [-most, 0, most].flatMap((value) => [
    vector("path", { d: `M${left} ${down(value)}h${size}M${across(value)} ${top}v${size}`, class: "grid" }),
    text(threeDigits(value), { x: left - 4, y: down(value) + 3, "text-anchor": "end" }),
    text(threeDigits(value), { x: across(value), y: top + size + 13, "text-anchor": "middle" }),
  ]);
  const names = [
    text("predicted", { x: left + size / 2, y: top + size + 28, "text-anchor": "middle" }),
    text("measured", { "text-anchor": "middle", transform: `translate(9 ${top + size / 2}) rotate(-90)` }),
  ];
  const dots = compared.map((one) => vector("circle", { cx: across(Number(one.predicted)), cy: down(one.measured), r: 3, class: "dot" }));
  return vector("svg", {
    viewBox: `0 0 ${left + size + right} ${top + size + below}`, class: "agreement", role: "img",
    "aria-label": `measured against predicted change of ${counted(compared.length)} effects, both from ${threeDigits(-most)} to ${threeDigits(most)}; on the diagonal they agree`,
  }, ...ticks, vector("path", { d: `M${across(-most)} ${down(-most)}L${across(most)} ${down(most)}`, class: "diagonal" }), ...names, ...dots);
}
