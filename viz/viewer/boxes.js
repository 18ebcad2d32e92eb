// @ts-check
// Boxes: keyboard control of the subgraph.  Tab reaches one box, arrows move from there.
"use strict";

const NUDGE = 12; // pixels that a key moves a box
const ARROWS = /** @type {Record<string, [number, number]>} */ ({ ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] });
const BOX_KEYS = "Enter Shift+Enter F2 Delete Shift+ArrowUp Shift+ArrowDown Shift+ArrowLeft Shift+ArrowRight";

/**
 * @param {HTMLElement} canvas
 * @param {Part[]} parts
 * @param {HTMLElement[]} boxes
 * @param {{x: number, y: number}[]} spots
 * @param {SubgraphEvents} events
 */
function listenToBoxes(canvas, parts, boxes, spots, events) {
  canvas.addEventListener("focusin", (event) => {
    const number = boxes.findIndex((box) => box.contains(/** @type {Node} */ (event.target)));
    if (number >= 0) beCurrent(boxes, number);
  });
  canvas.addEventListener("keydown", (event) => {
    const number = boxes.findIndex((box) => box.contains(/** @type {Node} */ (event.target)));
    if (number < 0 || event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = ARROWS[event.key];
    if (arrow && event.shiftKey) {
      const { x, y } = movedSpot(spots[number], NUDGE * arrow[0], NUDGE * arrow[1]);
      events.onMove(parts[number], x, y, event.repeat);
    } else if (arrow) nameOf(boxes[nearestSpot(spots, number, ...arrow) ?? number]).focus();
    else if (event.key === "F2") events.onRename(parts[number]);
    else if (isDelete(event)) {
      const next = nearestSpot(spots, number);
      if (next !== null) nameOf(boxes[next]).focus();
      events.onRemove(parts[number]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/** Whether a key is Delete or Backspace, which some keyboards have instead. @param {KeyboardEvent} event */
function isDelete({ key }) {
  return key === "Delete" || key === "Backspace";
}

/** @param {HTMLElement} box */
function nameOf(box) {
  return /** @type {HTMLElement} */ (box.querySelector(".name") ?? box);
}

/** Set the box that Tab reaches. @param {HTMLElement[]} boxes @param {number} current */
function beCurrent(boxes, current) {
  boxes.forEach((box, number) => nameOf(box).setAttribute("tabindex", number === current ? "0" : "-1"));
}

/**
 * The nearest other spot, in a direction if given; sideways distance counts threefold.
 * @param {{x: number, y: number}[]} spots
 * @param {number} from
 * @param {number} across
 * @param {number} down
 */
function nearestSpot(spots, from, across = 0, down = 0) {
  let best = null;
  let least = Infinity;
  spots.forEach(({ x, y }, number) => {
    const [dx, dy] = [x - spots[from].x, y - spots[from].y];
    const ahead = dx * across + dy * down;
    const far = across || down ? ahead + 3 * Math.abs(dx * down + dy * across) : Math.hypot(dx, dy);
    if (number === from || (ahead < 1 && (across || down)) || far >= least) return;
    [best, least] = [number, far];
  });
  return /** @type {number | null} */ (best);
}

/** @param {{x: number, y: number}} spot @param {number} dx @param {number} dy */
function movedSpot({ x, y }, dx, dy) {
  return { x: Math.max(BOX.wide / 2, x + dx), y: Math.max(BOX.high / 2, y + dy) };
}

/** Move a lost focus to an element of the next drawing. @param {string[]} keys The first that exists. */
function focusSoon(keys) {
  whenDrawn(() => {
    if (document.activeElement === document.body) keys.map((key) => byKey(key)).find(Boolean)?.focus();
  });
}
