// @ts-check
// Elements: HTML from values; text is never parsed as markup.
"use strict";

/**
 * @param {string} tag Name, with classes as in "button.primary".
 * @param {Record<string, any>} attributes Attributes; functions are listeners, as in {click: …}.
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElement}
 */
function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** @param {string} tag @param {Record<string, any>} attributes @param {...Element} children @returns {SVGElement} */
function vector(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

/** @param {string} id @returns {HTMLElement} */
function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** The element with a key. @param {string} key @param {ParentNode} place @returns {HTMLElement | null} */
function byKey(key, place = document) {
  return place.querySelector(`[data-key="${CSS.escape(key)}"]`);
}

/** Run a function after the next drawing of the page. @param {() => void} act */
function whenDrawn(act) {
  requestAnimationFrame(() => requestAnimationFrame(act));
}

/**
 * Replace the content of an element, keeping the keyboard focus.
 * @param {HTMLElement} place
 * @param {(Node | string | null | false)[]} children
 */
function refill(place, children) {
  const held = document.activeElement;
  const key = held && place.contains(held) ? held.getAttribute("data-key") : null;
  const top = place.scrollTop;
  place.replaceChildren(...children.filter((child) => child !== null && child !== false));
  place.scrollTop = top;
  if (key) byKey(key, place)?.focus({ preventScroll: true });
}

/**
 * Symbol of a kind of node, as in the plot.
 * @param {number} kind
 */
function symbolOf(kind) {
  const path = vector("path", { d: SHAPES[kind](), class: `kind-${KINDS[kind]}` });
  return vector("svg", { viewBox: "-1.5 -1.5 3 3", class: "symbol", "aria-hidden": "true" }, path);
}
