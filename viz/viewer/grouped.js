// @ts-check
// Grouped: what feeds a box of the summary or a group and what it feeds, as numbers, and its members.
"use strict";

/**
 * The panel of a box.
 * @param {PanelContext} context
 * @param {Overview} overview
 * @param {number} number
 * @param {HTMLElement | null} beside The box beside its counterpart in the graph that is compared.
 * @param {{onChoose: (box: number | null) => void, onPin: (box: Box) => void}} events
 */
function boxPanel(context, overview, number, beside, events) {
  const box = overview.boxes[number];
  const { graph } = context;
  const places = box.positions.map((pos) => `@${pos} ${tokenAt(graph, pos)}`).join(", ");
  const flows = (/** @type {(other: number) => number[]} */ of) => overview.boxes.map((_, other) => ({ other, flow: of(other)[0], net: of(other)[1] })).filter(({ flow }) => flow > 0).sort((a, b) => b.flow - a.flow);
  const into = flows((other) => [overview.flow[number][other], overview.net[number][other]]);
  const from = flows((other) => [overview.flow[other][number], overview.net[other][number]]);
  return element("section.detail", { "aria-label": "the chosen box" },
    element("h2", {}, element("bdi", {}, box.name)),
    element("dl", {},
      element("dt", {}, box.kind === "more" ? "starts here" : "enters"), element("dd", {}, `${percent(box.arrived)} of all influence`),
      element("dt", {}, "nodes"), element("dd", {}, counted(box.count)),
      ...(places ? [element("dt", {}, "at"), element("dd", {}, element("bdi", {}, places))] : [])),
    beside,
    box.kind === "group" && element("p.actions", {},
      element("button", { click: () => events.onPin(box), "data-key": "pin box", title: "add the group to the subgraph" }, "Pin")),
    box.kind === "more" && element("p.quiet", {}, "Features of no group, errors, biases and other tokens. Arrows between boxes include what passes through features of no group; this box gives what starts at the others."),
    flowList(overview, "Fed by", into, events),
    flowList(overview, "Feeds", from, events),
    box.rows.length > 1 || box.kind === "group" ? boxMembers(context, box) : null);
}

/**
 * @param {Overview} overview
 * @param {string} title
 * @param {{other: number, flow: number, net: number}[]} flows Strongest first.
 * @param {{onChoose: (box: number | null) => void}} events
 */
function flowList(overview, title, flows, { onChoose }) {
  const all = flows.reduce((sum, { flow }) => sum + flow, 0) || 1;
  const items = flows.filter(({ flow }) => flow >= 0.0005).map(({ other, flow, net }) => {
    const box = overview.boxes[other];
    return element("li", {}, element(`button.link.${net < 0 ? "negative" : "positive"}`, { click: () => onChoose(other), "data-key": `${title} box ${other}`, style: `--part: ${((100 * flow) / all).toFixed(1)}%` },
      element("span.share", {}, signed((net < 0 ? -1 : 1) * (flow / all))), element("span.weight", {}, percent(flow)), element("span.what", {}, element("bdi", {}, box.name)), element("span.where", {}, box.kind)));
  });
  if (!items.length) return null;
  return element("section.links", { "aria-label": title },
    element("h3", {}, title),
    element("div.heads", { "aria-hidden": "true" }, element("span", {}, "share"), element("span", {}, "of all"), element("span", {}, "box")),
    element("ul", { keydown: stepThrough }, ...items));
}

/** Members of a box by influence. @param {PanelContext} context @param {Box} box */
function boxMembers(context, box) {
  const { graph, notes } = context;
  const rows = [...box.rows].sort((a, b) => graph.arrived[b] - graph.arrived[a]);
  const all = rows.reduce((sum, row) => sum + graph.arrived[row], 0) || 1;
  const items = rows.slice(0, ROWS).map((row) =>
    element("li", {}, element("button.link.plain", { ...walking(context, row), "data-key": `member ${graph.names[row]}`, "data-node": graph.names[row] },
      element("span.share", {}, percent(graph.arrived[row] / all)), element("span.what", {}, symbolOf(graph.kind[row]), element("bdi", {}, labelOf(graph, notes, row))), element("span.where", {}, placeText(graph, row))), pinButton(context, "member", row)));
  return element("section.members", { "aria-label": `members of ${box.name}` },
    element("h3", {}, "Members", element("span.count", {}, ` ${counted(box.count)}`), rows.length > 1 && pinAllButton(context, "Members", rows.slice(0, ROWS))),
    box.count > box.rows.length && element("p.quiet", {}, `${counted(box.rows.length)} of them are in this page.`),
    element("ul", { keydown: stepThrough }, ...items));
}

/**
 * The panel of a person's group.
 * @param {PanelContext} context
 * @param {Group} group
 * @param {HTMLElement} members
 * @param {{onGroup: (name: string) => void}} events
 */
function groupPanel(context, group, members, { onGroup }) {
  const { graph, notes } = context;
  const rows = [...rowsOf(graph, group.members)];
  const places = [...new Set(rows.map((row) => graph.pos[row]))].filter((pos) => pos >= 0).sort((a, b) => a - b);
  const groups = groupNames(graph, notes);
  const list = (/** @type {string} */ title, /** @type {"inputs" | "outputs"} */ side) => {
    const flows = flowsBeside(graph, rows, groups, side);
    const all = flows.reduce((sum, { flow }) => sum + flow, 0) || 1;
    const items = flows.slice(0, ROWS).map((one) => {
      const row = strongestOf(graph, one.rows);
      const own = notes.groups.some(({ name }) => name === one.group);
      const events = own ? { click: () => onGroup(/** @type {string} */ (one.group)) } : walking(context, row);
      return element("li", {}, element(`button.link.${one.net < 0 ? "negative" : "positive"}`, { ...events, "data-key": `${title} ${one.group ?? graph.names[row]}`, style: `--part: ${((100 * one.flow) / all).toFixed(1)}%` },
        element("span.share", {}, signed((one.net < 0 ? -1 : 1) * (one.flow / all))), element("span.weight", {}, percent(one.flow)),
        element("span.what", {}, one.group === null ? symbolOf(graph.kind[row]) : null, element(one.group === null ? "bdi" : "bdi.grouped", {}, one.group ?? labelOf(graph, notes, row))), element("span.where", {}, placeText(graph, row))));
    });
    return element("section.links", { "aria-label": title },
      element("h3", {}, title, element("span.count", {}, ` ${counted(flows.length)}`)),
      items.length ? element("div.heads", { "aria-hidden": "true" }, element("span", {}, "share"), element("span", {}, "of all"), element("span", {}, "group or node")) : element("p.quiet", {}, "Nothing in this page."),
      element("ul", { keydown: stepThrough }, ...items));
  };
  const [arrived] = arrivedAt(graph, [{ name: group.name, rows, isGroup: true, of: null }]);
  return element("section.detail", { "aria-label": "the chosen group" },
    element("h2", {}, element("bdi", {}, group.name)),
    element("dl", {},
      element("dt", {}, "enters"), element("dd", {}, `${percent(arrived)} of all influence`),
      element("dt", {}, "nodes"), element("dd", {}, counted(group.members.length)),
      element("dt", {}, "at"), element("dd", {}, element("bdi", {}, places.map((pos) => `@${pos} ${tokenAt(graph, pos)}`).join(", ")))),
    list("Fed by", "inputs"), list("Feeds", "outputs"), members);
}

/** The panel while no box is chosen: all boxes, and what they carry. @param {Overview} overview @param {(box: number | null) => void} onChoose */
function boxesPanel(overview, onChoose) {
  const numbers = overview.boxes.map((_, number) => number).sort((a, b) => overview.boxes[b].arrived - overview.boxes[a].arrived);
  const items = numbers.map((number) => {
    const box = overview.boxes[number];
    return element("li", {}, element("button.link.plain", { click: () => onChoose(number), "data-key": `listed box ${number}` },
      element("span.share", {}, percent(box.arrived)), element("span.what", {}, element("bdi", {}, box.name)), element("span.where", {}, box.kind)));
  });
  return element("section", { "aria-label": "the boxes" },
    element("h3", {}, "Boxes by the influence that enters"),
    element("ul.strongest", { keydown: stepThrough }, ...items),
    element("p.quiet", {}, "Click a box to see what feeds it and what it feeds, or open the full graph (s)."));
}
