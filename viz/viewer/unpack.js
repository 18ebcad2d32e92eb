// @ts-check
// Unpack: the packed parts of the page (viz/html/packed.py), and the start of its scripts.
"use strict";

// Digits of base 85, as in Python apart from three that HTML escapes.
const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%.()*+-;,=/?@^_`{|}~";
const OLD_BROWSER = "This browser is too old for this page: it needs one of 2023 or later, which can decompress (DecompressionStream).";
const DAMAGED = "This page is damaged or was not saved whole: make it again with headwater view.";

/** Content of the page's part "data", for `start`. */
let pageData = /** @type {Uint8Array} */ (new Uint8Array(0));

/** Bytes of a text in base 85. @param {string} text */
function bytesOf(text) {
  const value = new Uint8Array(128);
  for (let i = 0; i < DIGITS.length; i++) value[DIGITS.charCodeAt(i)] = i;
  const words = Math.ceil(text.length / 5);
  const bytes = new DataView(new ArrayBuffer(4 * words));
  for (let word = 0; word < words; word++) {
    let number = 0;
    for (let i = 5 * word; i < 5 * word + 5; i++) number = 85 * number + (i < text.length ? value[text.charCodeAt(i)] : 84);
    bytes.setUint32(4 * word, number);
  }
  return new Uint8Array(bytes.buffer, 0, Math.floor((4 * text.length) / 5));
}

/** Decompressed content of a part of the page. @param {string} id @returns {Promise<Uint8Array>} */
async function unpacked(id) {
  const text = document.getElementById(id)?.textContent ?? "";
  const { readable, writable } = new DecompressionStream("deflate");
  const writer = writable.getWriter();
  // What is wrong with the bytes is thrown where they are read.
  for (const done of [writer.write(bytesOf(text)), writer.close()]) done.catch(() => {});
  return new Uint8Array(await new Response(readable).arrayBuffer());
}

/** Run a script of the page. @param {Uint8Array} content */
function run(content) {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(content);
  document.head.append(script);
}

/** Say why the page cannot be shown, with the table that it has for browsers without scripts. @param {string} sentence */
function giveUp(sentence) {
  const said = document.createElement("p");
  said.textContent = sentence;
  said.setAttribute("role", "alert");
  const table = document.createElement("div");
  table.innerHTML = document.querySelector("noscript")?.textContent ?? ""; // escaped when the page was made
  document.body.replaceChildren(said, ...table.querySelectorAll("table"));
  document.body.style.cssText = "display: block; padding: 12px; overflow: auto";
}

async function unpack() {
  if (!("DecompressionStream" in window)) {
    giveUp(OLD_BROWSER);
    return;
  }
  let scripts;
  try {
    [pageData, scripts] = await Promise.all([unpacked("data"), unpacked("viewer")]);
  } catch {
    giveUp(DAMAGED);
    return;
  }
  run(scripts);
}

// The part with plotly comes last in the page.
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", unpack, { once: true });
else unpack();
