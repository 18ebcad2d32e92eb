// @ts-check
// Strip: the prompt's tokens as buttons.  Of a long prompt the first, the last and the most
// influential are shown, and the others are folded.
"use strict";

const SHORT = 24; // tokens of a prompt that is shown whole
const ENDS = { first: 2, last: 4 };
const UNFOLDED = 12; // tokens of a longer one that are shown, those at its ends included

/** Influence that arrives at tokens, features and errors of each position. @param {Graph} graph */
function influenceByPosition(graph) {
  const sums = new Float64Array(graph.tokens.length);
  for (let n = 0; n < graph.count; n++) if (graph.pos[n] >= 0 && !isTarget(graph, n)) sums[graph.pos[n]] += graph.arrived[n];
  return sums;
}

/** Positions whose tokens are shown, ascending. @param {Graph} graph @param {Set<number>} always */
function unfoldedPositions(graph, always) {
  const count = graph.tokens.length;
  const all = graph.tokens.map((_, pos) => pos);
  if (count <= SHORT) return all;
  const influence = influenceByPosition(graph);
  const first = (/** @type {number} */ pos) => Number(always.has(pos) || pos < ENDS.first || pos >= count - ENDS.last);
  const ranked = [...all].sort((a, b) => first(b) - first(a) || influence[b] - influence[a] || a - b);
  return ranked.slice(0, Math.max(UNFOLDED, all.filter(first).length)).sort((a, b) => a - b);
}

/** @param {Viewer} viewer */
function renderStrip(viewer) {
  const { graph, view } = viewer;
  const columnOf = viewer.columnOf(view.active);
  const chosen = new Set(view.tokens ?? []);
  const button = (/** @type {number} */ pos) =>
    element("button.token", {
      "data-key": `token ${pos}`, "aria-pressed": String(chosen.has(columnOf[pos])), title: `position ${pos}`,
      click: () => {
        const tokens = toggled(view.tokens ?? [], columnOf[pos]);
        viewer.dispatch({ type: "set", view: { tokens: tokens.length ? tokens : null } });
      },
    }, element("bdi", {}, graph.tokens[pos]));
  const pressed = new Set(columnOf.flatMap((column, pos) => (chosen.has(column) ? [pos] : [])));
  const shown = unfoldedPositions(graph, pressed);
  const folded = graph.tokens.length - shown.length;
  const some = folded && !viewer.unfolded ? shown : graph.tokens.map((_, pos) => pos);
  const gap = (/** @type {number} */ i) => i > 0 && some[i] > some[i - 1] + 1 && element("span.quiet", { "aria-hidden": "true" }, "…");
  byId("prompt").classList.toggle("whole", viewer.unfolded);
  refill(byId("prompt"), [...some.flatMap((pos, i) => [gap(i), button(pos)]), folded > 0 && foldButton(viewer, folded)]);
}

/** @param {Viewer} viewer @param {number} folded */
function foldButton(viewer, folded) {
  const turn = () => {
    viewer.unfolded = !viewer.unfolded;
    viewer.schedule();
  };
  const title = viewer.unfolded ? "show only the first, last and most influential tokens" : "show all tokens";
  return element("button.fold", { "data-key": "fold", "aria-expanded": String(viewer.unfolded), title, click: turn }, viewer.unfolded ? "fewer" : `… ${counted(folded)} more`);
}
