// @ts-check
// Summary: the few boxes that a page opens on, and the influence between them.
"use strict";

/**
 * @typedef {object} Box Nodes that are drawn as one (graphs/groups/overview.py).
 * @property {"token" | "group" | "target" | "more"} kind
 * @property {string} name
 * @property {number[]} rows Its nodes in the page.
 * @property {number} count Its nodes in the graph.
 * @property {number[]} positions
 * @property {number} arrived Share of all influence that enters; of everything else, what starts there.
 *
 * @typedef {object} Placed Where a box, or a token of the prompt, is drawn (viz/paper/layout.py).
 * @property {number} box Its number; -1: a token that is in no box.
 * @property {"token" | "group" | "target" | "more"} kind
 * @property {[number, number, number, number]} rect Left, top, width, height.
 * @property {boolean} stacked
 * @property {{text: string, x: number, y: number, size: number}[]} lines By their middle.
 *
 * @typedef {object} Arrow
 * @property {number} source Number of a box.
 * @property {number} target
 * @property {"raises" | "lowers" | "mixed"} sign
 * @property {string} path
 * @property {[number, number]} end
 * @property {number} width
 * @property {string} text Its share of all influence.
 * @property {[number, number] | null} at Where that is written.
 * @property {boolean} pale
 *
 * @typedef {object} Drawing The boxes at one width.
 * @property {number} width
 * @property {number} height
 * @property {number} small Size of small type.
 * @property {Placed[]} placed
 * @property {Arrow[]} arrows
 *
 * @typedef {{text: string, crossed: boolean}} Left Before and after in percent; whether nothing is left.
 *
 * @typedef {object} Overview
 * @property {Box[]} boxes Sources before targets, everything else first.
 * @property {number[][]} flow Into each box from each, share of all influence.
 * @property {number[][]} net The same with signs.
 * @property {string} sentence The strongest chains of boxes.
 * @property {string} counted What of the influence the arrows carry.
 * @property {Drawing[]} drawings The widest first.
 */

const LEAST_TYPE = 11; // pixels of small type, below which the next narrower drawing is taken
const STACKED = [4, 2]; // how far the outlines behind a group's box stand out
const ROUND = 3.5; // of corners
const EDGE = 1.5; // free room beside a text, at least
const HEADS = { long: 6, half: 3.2, bar: 4.2 };
const DASHED = [3, 2]; // in widths of an arrow
const SIGN_WORDS = { raises: "raises", lowers: "lowers", mixed: "mixed" };
const SIGN_SIGNS = { raises: "→", lowers: "⊣", mixed: "↠" }; // in files
const FADED = 0.12; // opacity of what has nothing to do with the chosen box

/**
 * The widest drawing that is readable in this room, and its scale.
 * @param {Drawing[]} drawings
 * @param {number} width
 */
function drawingFor(drawings, width) {
  return drawings.find((one) => (one.small * width) / one.width >= LEAST_TYPE) ?? drawings[drawings.length - 1];
}

/**
 * @param {HTMLElement} place
 * @param {Overview} overview
 * @param {Palette} palette
 * @param {Left[]} left What an intervention left of each box; empty without one.
 * @param {number} chosen The box whose inputs and outputs are lit, or -1.
 * @param {(box: number | null) => void} onChoose
 */
function drawSummary(place, overview, palette, left, chosen, onChoose) {
  const drawing = drawingFor(overview.drawings, place.clientWidth);
  const picture = overviewPicture(overview, drawing, palette, chosen, left);
  const numberOf = (/** @type {Event} */ event) => Number((event.target instanceof Element && event.target.closest("[data-box]")?.getAttribute("data-box")) ?? -1);
  picture.addEventListener("click", (event) => {
    const number = numberOf(event);
    onChoose(number < 0 || number === chosen ? null : number);
  });
  picture.addEventListener("keydown", (event) => {
    const { key } = /** @type {KeyboardEvent} */ (event);
    const number = numberOf(event);
    if (number < 0 || (key !== "Enter" && key !== " " && !ARROWS[key])) return;
    event.preventDefault();
    event.stopPropagation();
    if (ARROWS[key]) boxBeside(drawing, number, ARROWS[key])?.focus();
    else onChoose(number === chosen ? null : number);
  });
  refill(place, [
    overview.sentence ? element("p.sentence", {}, overview.sentence) : null,
    /** @type {any} */ (picture),
    element("p.quiet.caption", {}, ...signsOf(drawing).map((sign) => element("span.sign", {}, /** @type {any} */ (signMark(sign, palette)), SIGN_WORDS[sign])), overview.counted,
      left.length > 0 && element("span", {}, "100 → n%: what is left of a group's activations, of a prediction its probability or value.")),
  ]);
}

/** Signs that occur among the arrows. @param {Drawing} drawing */
function signsOf({ arrows }) {
  return /** @type {Arrow["sign"][]} */ (["raises", "lowers", "mixed"]).filter((sign) => arrows.some((arrow) => arrow.sign === sign));
}

/** An arrow of the legend. @param {Arrow["sign"]} sign @param {Palette} palette */
function signMark(sign, palette) {
  const colour = arrowColour({ sign, pale: false }, palette);
  const head = {
    raises: { d: "M27 6l-7 -4v8Z", fill: colour },
    lowers: { d: "M26 1v10", stroke: colour, "stroke-width": 2 },
    mixed: { d: "M27 6l-7 -4v8Z", stroke: colour, "stroke-width": 1, fill: palette.paper },
  }[sign];
  const dash = sign === "lowers" ? { "stroke-dasharray": "4 3" } : {};
  return vector("svg", { viewBox: "0 0 28 12", width: 28, height: 12, "aria-hidden": "true" },
    vector("path", { d: "M1 6H25", stroke: colour, "stroke-width": 1.8, ...dash }), vector("path", head));
}

/**
 * The overview as the text of an SVG file, with its sentence, its legend and what is drawn of it.
 * @param {Overview} overview
 * @param {Drawing} drawing
 * @param {Palette} palette
 * @param {Left[]} left
 */
function overviewFile(overview, drawing, palette, left) {
  const { width, height, small } = drawing;
  const picture = overviewPicture(overview, drawing, palette, -1, left);
  const lines = [overview.sentence, [...signsOf(drawing).map((sign) => `${SIGN_SIGNS[sign]} ${SIGN_WORDS[sign]}`), overview.counted].join("   ")].filter(Boolean);
  const below = height + (lines.length + 0.5) * 1.5 * small;
  picture.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  picture.setAttribute("viewBox", `0 0 ${width} ${below}`);
  picture.setAttribute("width", `${width}pt`);
  picture.setAttribute("height", `${below}pt`);
  picture.prepend(vector("rect", { width, height: below, fill: palette.paper }));
  lines.forEach((line, number) => picture.append(textMark(line, width / 2, height + (number + 0.75) * 1.5 * small, small, palette.ink)));
  for (const one of picture.querySelectorAll("[tabindex]")) for (const name of ["tabindex", "role", "aria-pressed", "aria-label", "data-key", "data-box"]) one.removeAttribute(name);
  return `${new XMLSerializer().serializeToString(picture)}\n`;
}

/** The next box in a direction. @param {Drawing} drawing @param {number} from @param {[number, number]} direction */
function boxBeside({ placed }, from, direction) {
  const boxes = placed.filter(({ box }) => box >= 0);
  const middles = boxes.map(({ rect: [x, y, width, height] }) => ({ x: x + width / 2, y: y + height / 2 }));
  const next = nearestSpot(middles, boxes.findIndex(({ box }) => box === from), ...direction);
  return next === null ? null : byKey(`box ${boxes[next].box}`);
}

/**
 * The overview as SVG, with colours of its own so that it can be saved as it is.
 * @param {Overview} overview
 * @param {Drawing} drawing
 * @param {Palette} palette
 * @param {number} chosen Number of a box, or -1.
 * @param {Left[]} left
 */
function overviewPicture(overview, drawing, palette, chosen, left) {
  const { width, height, arrows, placed } = drawing;
  const beside = (/** @type {number} */ box) => chosen < 0 || box === chosen || (box >= 0 && (overview.flow[chosen][box] > 0 || overview.flow[box][chosen] > 0));
  const picture = vector("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "overview", role: "group", "font-family": FONT,
    "aria-label": `Summary: ${overview.boxes.length} boxes and the influence between them. Arrow keys go from box to box, Enter selects.`,
  });
  const lit = arrows.map(({ source, target }) => chosen < 0 || source === chosen || target === chosen);
  const first = placed.find(({ box, kind }) => box >= 0 && kind === "group")?.box ?? placed.find(({ box }) => box >= 0)?.box;
  picture.append(
    ...arrows.map((arrow, number) => arrowMark(arrow, palette, lit[number])),
    ...placed.map((one) => boxMark(overview, one, palette, beside(one.box), one.box === (chosen < 0 ? first : chosen), one.box === chosen)),
    ...arrows.flatMap((arrow, number) => (arrow.at && (chosen < 0 || lit[number]) ? [shareMark(arrow, arrow.at, drawing.small, palette)] : [])),
    ...placed.flatMap((one) => (left[one.box]?.text ? [leftMark(one, left[one.box], drawing.small, palette)] : [])));
  return picture;
}

/** Colour of an arrow. @param {Pick<Arrow, "sign" | "pale">} arrow @param {Palette} palette */
function arrowColour({ sign, pale }, palette) {
  if (pale) return mixed(palette.paper, palette.grey, 0.5); // what starts at everything else
  return { raises: palette.positive, lowers: palette.negative, mixed: palette.grey }[sign];
}

/** @param {Arrow} arrow @param {Palette} palette @param {boolean} lit */
function arrowMark(arrow, palette, lit) {
  const { source, target, path, end: [x, y], width, sign } = arrow;
  const colour = arrowColour(arrow, palette);
  const { long, half, bar } = HEADS;
  const spread = half + width / 2;
  const head = {
    raises: vector("path", { d: `M${x} ${y}l${-spread} ${long}h${2 * spread}Z`, fill: colour }),
    lowers: vector("path", { d: `M${x - bar - width / 2} ${y + 1}h${2 * bar + width}`, stroke: colour, "stroke-width": 2, fill: "none" }),
    mixed: vector("path", { d: `M${x} ${y}l${-spread} ${long}h${2 * spread}Z`, stroke: colour, "stroke-width": 0.8, fill: palette.paper }),
  }[sign];
  const dash = sign === "lowers" ? { "stroke-dasharray": DASHED.map((part) => (part * Math.max(width, 1)).toFixed(1)).join(" ") } : {};
  return vector("g", { class: "arrow", "data-arrow": `${source} ${target}`, ...(lit ? {} : { opacity: FADED }) },
    vector("path", { d: path, fill: "none", stroke: colour, "stroke-width": width.toFixed(2), ...dash }), head);
}

/** @param {Arrow} arrow @param {[number, number]} at @param {number} size @param {Palette} palette */
function shareMark(arrow, [x, y], size, palette) {
  const half = widthOf(arrow.text, size) / 2 + 1;
  return vector("g", { class: "arrow-share" },
    vector("rect", { x: x - half, y: y - size / 2 - 0.5, width: 2 * half, height: size + 1, fill: palette.paper }),
    textMark(arrow.text, x, y, size, arrow.pale ? palette.grey : arrowColour(arrow, palette)));
}

/** What an intervention left of a box, at its upper edge; crossed out if nothing. @param {Placed} placed @param {Left} left @param {number} size @param {Palette} palette */
function leftMark({ rect: [x, y, width, height] }, { text, crossed }, size, palette) {
  const half = widthOf(text, size) / 2 + 3;
  return vector("g", { class: "left-mark", "pointer-events": "none" },
    ...(crossed ? [vector("path", { d: `M${x} ${y}l${width} ${height}M${x} ${y + height}l${width} ${-height}`, stroke: palette.ink, "stroke-width": 1.2 })] : []),
    vector("rect", { x: x + width / 2 - half, y: y - size * 1.25, width: 2 * half, height: size * 1.4, rx: 2, fill: palette.paper, stroke: palette.ink, "stroke-width": 0.6 }),
    textMark(text, x + width / 2, y - size * 0.55, size, palette.ink));
}

/**
 * @param {Overview} overview
 * @param {Placed} placed
 * @param {Palette} palette
 * @param {boolean} lit
 * @param {boolean} first Whether Tab reaches it.
 * @param {boolean} chosen
 */
function boxMark(overview, { box, kind, rect: [left, top, width, height], stacked, lines }, palette, lit, first, chosen) {
  const used = box >= 0;
  const colour = { token: palette.token, group: palette.ink, target: palette.target, more: palette.grey }[kind];
  const fill = kind === "group" ? palette.pale : kind === "more" || !used ? palette.paper : mixed(palette.paper, colour, 0.18);
  const frame = (/** @type {number} */ shift) => vector("rect", {
    x: left + shift, y: top - shift, width, height, rx: ROUND, fill,
    stroke: chosen ? palette.cursor : used ? colour : "none", "stroke-width": chosen ? 1.8 : 0.8, ...(kind === "more" ? { "stroke-dasharray": "2 2" } : {}),
  });
  const texts = lines.map((line) => {
    const text = textMark(line.text, line.x, line.y, line.size, used && kind !== "more" ? palette.ink : palette.grey);
    if (widthOf(line.text, line.size) > width - 2 * EDGE) { // boxes have room for average letters, W and m are wider
      text.setAttribute("textLength", String(width - 2 * EDGE));
      text.setAttribute("lengthAdjust", "spacingAndGlyphs");
    }
    return text;
  });
  const marks = [...(stacked ? STACKED.map(frame) : []), frame(0), ...texts];
  if (!used) return vector("g", { ...(lit ? {} : { opacity: 0.5 }) }, ...texts);
  const title = vector("title");
  title.textContent = boxName(overview, box);
  return vector("g", {
    class: `box ${kind}`, tabindex: first ? "0" : "-1", role: "button", "aria-pressed": String(chosen), "aria-label": boxName(overview, box),
    "data-key": `box ${box}`, "data-box": box, ...(lit ? {} : { opacity: FADED }),
  }, title, ...marks);
}

/** What a box is, for screen readers and tooltips. @param {Overview} overview @param {number} number */
function boxName(overview, number) {
  const { name, kind, count, arrived } = overview.boxes[number];
  const what = { token: "token", group: `group of ${count} node${count === 1 ? "" : "s"}`, target: "prediction", more: "everything else" }[kind];
  return `${name}, ${what}, ${percent(arrived)} of all influence`;
}

/** A text around a point. @param {string} content @param {number} x @param {number} y @param {number} size @param {string} fill */
function textMark(content, x, y, size, fill) {
  const text = vector("text", { x, y, "font-size": size, fill, "text-anchor": "middle", "dominant-baseline": "central" });
  text.textContent = content;
  return text;
}
