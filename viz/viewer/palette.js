// @ts-check
// Palette: the colours of the style sheet, for drawings.
"use strict";

/** Colours of the light page. @returns {Palette} */
function lightPalette() {
  const { dataset } = document.documentElement;
  const shown = dataset.theme;
  dataset.theme = "light";
  const palette = readPalette();
  dataset.theme = shown;
  return palette;
}

/** Colours of the style sheet. @returns {Palette} */
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "grey", "pale", "positive", "negative", "token", "feature", "error", "bias", "target", "head", "pin", "cursor", "less", "same", "more"];
  return /** @type {Palette} */ (Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()])));
}
