// @ts-check
// Members: the nodes of a supernode, and removing one of them.
"use strict";

/**
 * @param {PanelContext} context
 * @param {Group} group
 * @param {string} clicked
 * @param {(name: string) => void} onLeave
 */
function memberList(context, group, clicked, onLeave) {
  const { graph, notes } = context;
  const strength = (/** @type {string} */ name) => graph.influence[graph.place.get(name) ?? -1] ?? -1;
  const names = [...group.members].sort((a, b) => strength(b) - strength(a));
  const items = names.map((name) => {
    const row = graph.place.get(name);
    const text = row === undefined ? name : labelOf(graph, notes, row);
    const leave = () => {
      focusBeside(name, names);
      onLeave(name);
    };
    const walk = element("button.link.plain", {
      "data-key": `member ${name}`, "data-node": name, disabled: row === undefined, "aria-current": name === clicked ? "true" : null, "aria-keyshortcuts": "Delete",
      ...(row === undefined ? {} : walking(context, row)),
      keydown: (/** @type {KeyboardEvent} */ event) => isDelete(event) && leave(),
    }, element("span.share", {}, row === undefined ? "" : percent(graph.influence[row])), element("span.what", {}, row === undefined ? null : symbolOf(graph.kind[row]), element("bdi", {}, text)),
    element("span.where", {}, row === undefined ? "not in this page" : placeText(graph, row)));
    return element("li", {}, walk, element("button.tool", { click: leave, "data-key": `leave ${name}`, title: "remove from the group (Delete)", "aria-label": `remove ${text} from ${group.name}` }, "×"));
  });
  return element("section.members", { "aria-label": `members of ${group.name}` },
    element("h3", {}, "Members of ", element("bdi", {}, `“${group.name}”`), element("span.count", {}, ` ${counted(names.length)}`)),
    element("ul", { keydown: stepThrough }, ...items));
}

/** Keep the focus in the list when a member is removed. @param {string} name @param {string[]} names */
function focusBeside(name, names) {
  const place = names.indexOf(name);
  const beside = names[place + 1] ?? names[place - 1];
  if (beside) byKey(`member ${beside}`)?.focus();
}
