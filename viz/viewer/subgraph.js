// @ts-check
// Subgraph: pinned nodes and supernodes as boxes that can be dragged, and flows between them.
"use strict";

const PADDING = { width: 28, height: 14 }; // around the boxes, as in the style sheet
const ARC = 26; // height of flows between boxes of one line, in pixels
const LEAST_NUMBERED = 0.01; // of all influence: flows with a number
const MOST_NUMBERED = 40;
const NUMBER_SIZE = 10; // of their type

/**
 * @typedef {object} SubgraphEvents
 * @property {(part: Part) => void} onWalk
 * @property {(part: Part | null) => void} onPoint
 * @property {(part: Part, x: number, y: number, again: boolean) => void} onMove again: continues the previous move.
 * @property {(part: Part) => void} onGroup Join or leave the group to be made.
 * @property {(part: Part) => void} onRemove Ungroup, or unpin.
 * @property {(part: Part) => void} onRename Rename a group, or label a node.
 * @property {(name: string) => void} onFold Show a group's members, or the group again.
 */

/**
 * @param {HTMLElement} place
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {Set<string>} chosen Names of parts to be grouped.
 * @param {View} view
 * @param {SubgraphEvents} events
 */
function drawSubgraph(place, graph, notes, chosen, { fit, unfolded }, events) {
  const parts = partsOf(graph, notes, unfolded);
  if (!parts.length) {
    refill(place, [element("p.quiet.hint", {}, "Pin nodes (p, or Ctrl-click) to build a subgraph of your own; or start from suggested groups.")]);
    return;
  }
  const flows = flowsBetween(graph, parts);
  const room = roomIn(place, fit);
  const spots = spotsOf(graph, notes, parts, room);
  const size = extent(spots);
  const scale = fitting(size, room.width, room.height);
  const lines = vector("svg", { width: size.width, height: size.height, class: "flows", "aria-hidden": "true" });
  const redraw = () => lines.replaceChildren(...flowLines(flows, spots));
  redraw();
  const arrived = arrivedAt(graph, parts);
  const boxes = parts.map((part, number) => {
    const box = partBox(graph, notes, part, arrived[number], incoming(flows, parts.map((one) => textOf(graph, notes, one)), number, arrived), chosen, events);
    box.style.left = `${spots[number].x - BOX.wide / 2}px`;
    box.style.top = `${spots[number].y - BOX.high / 2}px`;
    draggable(box, (dx, dy) => {
      spots[number] = movedSpot(spots[number], dx / scale, dy / scale);
      box.style.left = `${spots[number].x - BOX.wide / 2}px`;
      box.style.top = `${spots[number].y - BOX.high / 2}px`;
      redraw();
    }, () => events.onMove(part, spots[number].x, spots[number].y, false));
    return box;
  });
  const help = `${boxes.length} boxes. Arrows go from one to the next, Enter selects, Shift and arrows move, F2 renames, Delete ungroups or unpins.`;
  const canvas = element("div.canvas", { role: "group", "aria-label": help, style: `width: ${size.width}px; height: ${size.height}px; transform: scale(${scale})` }, lines, ...boxes);
  const held = place.querySelector('.name[tabindex="0"]')?.getAttribute("data-key");
  beCurrent(boxes, Math.max(0, parts.findIndex(({ name }) => `part ${name}` === held)));
  listenToBoxes(canvas, parts, boxes, spots, events);
  refill(place, [element("div.sheet", { style: `width: ${Math.floor(size.width * scale)}px; height: ${Math.floor(size.height * scale)}px` }, canvas)]);
}

/** Room for the boxes; infinite where the place scrolls, which small screens do downwards. @param {HTMLElement} place @param {boolean} fit */
function roomIn(place, fit) {
  const free = getComputedStyle(place).getPropertyValue("--height") === "free";
  return { width: fit ? place.clientWidth - PADDING.width : Infinity, height: fit && !free ? place.clientHeight - PADDING.height : Infinity };
}

/** Places of parts: as dragged, else as laid out in this room. @param {Graph} graph @param {Notes} notes @param {Part[]} parts @param {{width: number, height: number}} room */
function spotsOf(graph, notes, parts, room) {
  const own = placesOf(graph, parts, room.width, room.height);
  return parts.map((part, number) => {
    const place = notes.places[part.name];
    return place ? { x: place[0], y: place[1] } : own[number];
  });
}

/** @param {Spot[]} spots */
function extent(spots) {
  return {
    width: Math.max(...spots.map(({ x }) => x)) + BOX.width / 2,
    height: Math.max(...spots.map(({ y }) => y)) + LEAST_HEIGHT / 2,
  };
}

/** @param {Graph} graph @param {Notes} notes @param {Part} part @param {number} arrived @param {string} fed @param {Set<string>} chosen @param {SubgraphEvents} events */
function partBox(graph, notes, part, arrived, fed, chosen, events) {
  const text = textOf(graph, notes, part);
  const about = `${part.isGroup ? `group of ${part.rows.length}` : part.name}, ${percent(arrived)} of all influence enters${fed}`;
  const main = element("button.name", {
    title: about, "aria-label": `${text}, ${about}`, "data-key": `part ${part.name}`, "aria-keyshortcuts": BOX_KEYS, "aria-pressed": String(chosen.has(part.name)),
    click: (/** @type {MouseEvent} */ event) => (event.shiftKey || grouping() ? events.onGroup(part) : events.onWalk(part)),
    dblclick: () => part.isGroup && events.onRename(part),
    pointerenter: () => events.onPoint(part), pointerleave: () => events.onPoint(null), focus: () => events.onPoint(part), blur: () => events.onPoint(null),
  }, part.isGroup ? null : symbolOf(graph.kind[part.rows[0]]), element("bdi", {}, shortened(text, 34)));
  const fold = part.isGroup ? part.name : part.of;
  const folding = fold !== null && element("button.tool", { title: part.isGroup ? "unfold: show its members" : `fold into ${fold}`, tabindex: "-1", "aria-label": `${part.isGroup ? "unfold" : "fold"} ${fold}`, "data-key": `fold ${part.name}`, click: () => events.onFold(fold) }, part.isGroup ? "⊞" : "⊟");
  const tools = part.isGroup
    ? [
        element("button.tool", { title: "rename (F2)", tabindex: "-1", "aria-label": `rename ${part.name}`, "data-key": `rename ${part.name}`, click: () => events.onRename(part) }, "✎"),
        element("button.tool", { title: "ungroup (Delete)", tabindex: "-1", "aria-label": `ungroup ${part.name}`, "data-key": `ungroup ${part.name}`, click: () => events.onRemove(part) }, "×"),
      ]
    : [];
  return element(`div.part${part.isGroup ? ".group" : ""}${chosen.has(part.name) ? ".chosen" : ""}`, {}, main, folding, ...tools);
}

/** Whether the group key is held. */
const grouping = () => document.body.classList.contains("grouping");

/** Text of a box. @param {Graph} graph @param {Notes} notes @param {Part} part */
function textOf(graph, notes, { isGroup, name, rows }) {
  return isGroup ? name : shortLabel(graph, notes, rows[0]);
}

/** Text about the strongest inputs of a part. @param {Flow[]} flows @param {string[]} texts @param {number} number @param {number[]} arrived */
function incoming(flows, texts, number, arrived) {
  const into = flows.filter(({ target }) => target === number).slice(0, 3);
  const inputs = into.map(({ source, flow, net }) => `${net < 0 ? "−" : "+"}${percent(flow / (arrived[number] || 1))} from ${texts[source]}`);
  return inputs.length ? `; ${inputs.join(", ")}` : "";
}

/** Short text of a node; its whole label if there is none. @param {Graph} graph @param {Notes} notes @param {number} row */
function shortLabel(graph, notes, row) {
  return markText(graph, notes, row) || graph.labels[row];
}

/** Text next to a node: a person's label, a short text, or nothing. @param {Graph} graph @param {Notes} notes @param {number} row */
function markText(graph, notes, row) {
  const own = labelOf(graph, notes, row);
  return own === graph.labels[row] ? graph.marks[row] : own;
}

/** @param {Flow[]} flows @param {{x: number, y: number}[]} spots */
function flowLines(flows, spots) {
  const lines = [...flows].reverse().map((flow) => {
    const { width, opacity } = flowStroke(flow, flows);
    return vector("path", {
      d: flowPath(spots[flow.source], spots[flow.target]), fill: "none",
      class: flow.net < 0 ? "negative" : "positive",
      "stroke-width": width.toFixed(2), opacity: opacity.toFixed(2),
    });
  });
  const numbers = flowNumbers(flows, spots).map(({ text, x, y }) => {
    const number = vector("text", { x, y, class: "flow-share", "text-anchor": "middle", "dominant-baseline": "central" });
    number.textContent = text;
    return number;
  });
  return [...lines, ...numbers];
}

/** Shares of the strongest flows, where their lines are and no box and no other number is. @param {Flow[]} flows Strongest first. @param {Spot[]} spots */
function flowNumbers(flows, spots) {
  const boxes = boxIndex(spots.map(({ x, y }) => [x - BOX.wide / 2, y - BOX.high / 2, x + BOX.wide / 2, y + BOX.high / 2]));
  return flows.filter(({ flow }) => flow >= LEAST_NUMBERED).slice(0, MOST_NUMBERED).flatMap(({ source, target, flow, net }) => {
    const [from, to] = [spots[source], spots[target]];
    const beside = Math.abs(from.y - to.y) < BOX.high;
    const [x, y] = [(from.x + to.x) / 2, beside ? Math.min(from.y, to.y) - BOX.high / 2 - 0.75 * ARC : (from.y + to.y) / 2];
    const text = signed(net < 0 ? -flow : flow);
    const half = widthOf(text, NUMBER_SIZE) / 2 + 1;
    /** @type {[number, number, number, number]} */
    const room = [x - half, y - NUMBER_SIZE / 2, x + half, y + NUMBER_SIZE / 2];
    if (boxes.hits(room)) return [];
    boxes.add(room);
    return [{ text, x, y }];
  });
}

/** Stroke of a flow: thicker and more opaque for larger flows. @param {Flow} flow @param {Flow[]} flows Strongest first. */
function flowStroke({ flow }, [{ flow: most }]) {
  const part = Math.sqrt(flow / (most || 1));
  return { width: 0.5 + 6 * part, opacity: 0.25 + 0.6 * part };
}

/** @param {{x: number, y: number}} from @param {{x: number, y: number}} to */
function flowPath(from, to) {
  if (Math.abs(from.y - to.y) < BOX.high) {
    const [y0, y1] = [from.y - BOX.high / 2, to.y - BOX.high / 2];
    return `M${from.x} ${y0}C${from.x} ${y0 - ARC} ${to.x} ${y1 - ARC} ${to.x} ${y1}`;
  }
  const [y0, y1] = from.y > to.y ? [from.y - BOX.high / 2, to.y + BOX.high / 2] : [from.y, to.y];
  const middle = (y0 + y1) / 2;
  return `M${from.x} ${y0}C${from.x} ${middle} ${to.x} ${middle} ${to.x} ${y1}`;
}

/** @param {HTMLElement} box @param {(dx: number, dy: number) => void} onDrag @param {() => void} onDrop */
function draggable(box, onDrag, onDrop) {
  /** @type {[number, number] | null} */
  let last = null;
  let moved = false;
  box.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    [last, moved] = [[event.clientX, event.clientY], false];
  });
  window.addEventListener("pointermove", function follow(event) {
    if (!box.isConnected) window.removeEventListener("pointermove", follow);
    if (!last) return;
    const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
    if (!moved && Math.hypot(dx, dy) < MOVED) return;
    [last, moved] = [[event.clientX, event.clientY], true];
    onDrag(dx, dy);
  });
  window.addEventListener("pointerup", function drop() {
    if (!box.isConnected) window.removeEventListener("pointerup", drop);
    if (last && moved) onDrop();
    last = null;
  });
  box.addEventListener("click", (event) => moved && event.stopPropagation(), true);
}

/**
 * The subgraph as a drawing.
 * @param {(width: number, height: number) => Pen} makePen
 * @param {Graph} graph
 * @param {Notes} notes
 * @param {Palette} palette
 * @param {{width: number, height: number}} room In which boxes are laid out.
 * @param {string[]} unfolded
 */
function paintSubgraph(makePen, graph, notes, palette, room, unfolded) {
  const parts = partsOf(graph, notes, unfolded);
  const spots = spotsOf(graph, notes, parts, room);
  const { width, height } = extent(spots);
  const pen = makePen(Math.ceil(width), Math.ceil(height));
  pen.box(0, 0, Math.ceil(width), Math.ceil(height), palette.paper);
  const flows = flowsBetween(graph, parts);
  for (const flow of [...flows].reverse()) {
    const color = flow.net < 0 ? palette.negative : palette.positive;
    pen.line(flowPath(spots[flow.source], spots[flow.target]), { color, ...flowStroke(flow, flows) });
  }
  for (const { text, x, y } of flowNumbers(flows, spots)) pen.text(text, x, y, { color: palette.ink, size: NUMBER_SIZE, anchor: "middle", halo: palette.paper });
  parts.forEach((part, number) => {
    const { x, y } = spots[number];
    pen.box(x - BOX.wide / 2 - 1, y - BOX.high / 2 - 1, BOX.wide + 2, BOX.high + 2, palette.grey);
    pen.box(x - BOX.wide / 2, y - BOX.high / 2, BOX.wide, BOX.high, part.isGroup ? palette.pale : palette.paper);
    pen.text(shortened(textOf(graph, notes, part), 22), x, y, { color: palette.ink, size: 11, anchor: "middle", bold: part.isGroup });
  });
  return pen;
}
