// @ts-check
// Numbers: formatted as in viz/text/words.py.
"use strict";

/** A share as a percentage. @param {number} share */
function percent(share) {
  if (share === 0) return "0%";
  return share >= 0.0005 ? `${(share * 100).toFixed(1)}%` : "<0.1%";
}

/** A signed share. @param {number} share */
function signed(share) {
  return `${share < 0 ? "−" : "+"}${percent(Math.abs(share))}`;
}

/** Three digits of a number, with a real minus sign; empty for NaN. @param {number} value */
function threeDigits(value) {
  if (Number.isNaN(value)) return "";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-4 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", "−");
}

/** With commas between thousands. @param {number} value */
function counted(value) {
  return value.toLocaleString("en");
}
