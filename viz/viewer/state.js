// @ts-check
// State: everything that can change in the page, and the pure functions that change it.
"use strict";

/**
 * @typedef {object} Notes A person's annotations of one graph, which can be undone and saved.
 * @property {string[]} pins
 * @property {Record<string, string>} labels By node, or by LAYER/INDEX of a feature anywhere.
 * @property {Group[]} groups
 * @property {Record<string, [number, number]>} places Of nodes and groups in the subgraph.
 * @property {string[]} hidden
 *
 * @typedef {object} View What is shown, and how.
 * @property {number[]} shown The graph on the screen, or two side by side.
 * @property {number} active The active one of them.
 * @property {boolean} summary Whether graphs are shown as the few boxes of their overview.
 * @property {number | null} box The chosen one of these.
 * @property {string | null} group The chosen group of a person.
 * @property {(string | null)[]} clicked For each graph.
 * @property {string | null} from Start of the paths to the clicked node.
 * @property {string | null} minus A prediction that is subtracted from the clicked one.
 * @property {number} nodes
 * @property {number} edges
 * @property {boolean} keepErrors
 * @property {string[]} without Kinds that are hidden.
 * @property {[number, number] | null} layers
 * @property {number[] | null} tokens Columns of the visible ones.
 * @property {number | null} frequency Features that are active on a larger share of tokens are hidden.
 * @property {string} search
 * @property {"either" | "inputs" | "outputs" | "pinned"} links
 * @property {boolean} faint Whether edges are drawn while no node is clicked.
 * @property {number | null} drawn Share of the influence along edges that those drawn hold; null: as at first.
 * @property {[number, number, number, number] | null} range Left, right, bottom, top, from 0 to 1.
 * @property {string[]} heads Edges that cross one of these first stay lit, as in 4.5; none: all edges.
 * @property {number} crossing Least share of an edge over them.
 * @property {string | null} head Shown in the panel of heads, by the name of its node.
 * @property {string | null} edge Whose heads are shown in the lists, as "SOURCE>TARGET".
 * @property {"node" | "list" | "heads" | "paths" | "fields" | "about"} tab
 * @property {[string, string]} fields
 * @property {"difference" | "kind"} colour Meaning of colours when two graphs are compared.
 * @property {"auto" | "light" | "dark"} theme
 * @property {number} side Width of the panel at the side, in pixels.
 * @property {number} below Height of the subgraph, in pixels.
 * @property {boolean} hulls Whether groups are outlined in the plot.
 * @property {boolean} fit Whether all boxes of the subgraph fit.
 * @property {string[]} unfolded Groups of the subgraph of which the members are shown.
 *
 * @typedef {object} State
 * @property {View} view
 * @property {Notes[]} notes By graph.
 * @property {Notes[]} seen Annotations of the file when a person last saw them, by graph.
 * @property {Mine} mine
 * @property {UndoStep[]} past
 * @property {UndoStep[]} future
 * @typedef {Record<string, Record<string, string>>} Mine A person's labels by dictionary and feature.
 * @typedef {{notes: Notes[], mine: Mine}} UndoStep What undo restores.
 * @typedef {{type: string} & Record<string, any>} Change
 */

const MOST_UNDONE = 200;
const MOST_PINS = 200;

/** @type {Notes} */
const NO_NOTES = { pins: [], labels: {}, groups: [], places: {}, hidden: [] };

/**
 * @param {Graph[]} graphs
 * @returns {State}
 */
function initialState(graphs) {
  const edges = graphs[0].defaults.edges;
  const nodes = Math.min(...graphs.map(({ defaults }) => defaults.nodes));
  return {
    view: {
      shown: graphs.length === 2 ? [0, 1] : [0], active: 0, summary: graphs.every(({ overview }) => overview !== null), box: null, group: null, clicked: graphs.map(() => null), from: null, minus: null, nodes, edges,
      keepErrors: false, without: [], layers: null, tokens: null, frequency: null, search: "", links: "either",
      heads: [], crossing: 0.1, head: null, edge: null,
      faint: true, drawn: null, range: null, tab: "node", fields: ["layer", "influence"], colour: "difference", theme: "auto",
      side: 420, below: 260, hulls: true, fit: true, unfolded: [],
    },
    notes: graphs.map((graph) => notesFrom(graph.annotations)),
    seen: graphs.map((graph) => notesFrom(graph.annotations)),
    mine: {},
    past: [],
    future: [],
  };
}

/** The notes in an annotations file. @param {any} annotations @returns {Notes} */
function notesFrom(annotations) {
  const { pins, labels, groups, places, hidden } = { ...NO_NOTES, ...annotations };
  return { pins, labels, groups, places, hidden };
}

/**
 * The state after a change.  Only changes to notes can be undone.
 * @param {State} state
 * @param {Change} change
 * @returns {State}
 */
function reduce(state, change) {
  const { past, future, notes, mine, view, seen } = state;
  if (change.type === "undo") {
    if (!past.length) return state;
    return seenAgain(state, { ...state, ...past[past.length - 1], past: past.slice(0, -1), future: [{ notes, mine }, ...future] });
  }
  if (change.type === "redo") {
    if (!future.length) return state;
    return seenAgain(state, { ...state, ...future[0], past: [...past, { notes, mine }], future: future.slice(1) });
  }
  const graph = change.graph ?? view.active;
  const known = "file" in change ? seen.with(graph, change.file) : seen;
  if (change.type === "keep") return { ...state, seen: known };
  const inNotes = NOTE_CHANGES[change.type];
  if (!inNotes) return { ...state, view: changedView(view, change) };
  const after = inNotes(notes[graph], change);
  if (after === notes[graph]) return state;
  return {
    view,
    notes: notes.with(graph, after),
    seen: known,
    mine: change.type === "label" ? relabelled(mine, notes[graph], change) : mine,
    past: change.again ? past : [...past, { notes, mine }].slice(-MOST_UNDONE), // a held key is one change
    future: [],
  };
}

/** Show the graph whose notes undo or redo changed. @param {State} before @param {State} after @returns {State} */
function seenAgain(before, after) {
  const graph = after.notes.findIndex((notes, one) => notes !== before.notes[one]);
  if (graph < 0 || after.view.shown.includes(graph)) return after;
  return { ...after, view: changedView(after.view, { type: "show", shown: [graph] }) };
}

/**
 * @param {View} view
 * @param {Change} change
 * @returns {View}
 */
function changedView(view, change) {
  switch (change.type) {
    case "click": {
      const active = change.graph ?? view.active;
      const same = view.clicked[active] === change.node && !change.stay;
      const now = (/** @type {number} */ graph) => (same ? null : graph === active ? change.node : (change.partner ?? null));
      const clicked = view.clicked.map((before, graph) => (view.shown.includes(graph) ? now(graph) : before));
      return { ...view, active, clicked, summary: false, box: null, group: null, minus: null, edge: null, tab: ["node", "paths"].includes(view.tab) ? view.tab : "node" };
    }
    case "clear":
      return { ...view, clicked: view.clicked.map((before, graph) => (view.shown.includes(graph) ? null : before)), box: null, group: null, from: null, minus: null };
    case "show": {
      const active = change.shown.includes(view.active) ? view.active : change.shown[0];
      const paths = active === view.active ? {} : { from: null, minus: null };
      return { ...view, ...paths, shown: change.shown, active, tokens: null, range: null }; // columns differ
    }
    case "unfold":
      return { ...view, unfolded: toggled(view.unfolded, change.name) };
    case "kind":
      return { ...view, without: toggled(view.without, change.kind) };
    case "reset":
      return { ...view, range: null, drawn: null, layers: null, tokens: null, frequency: null, search: "", without: [], heads: [] };
    case "set":
      return { ...view, ...change.view };
    default:
      throw new Error(`Unknown change ${change.type}.`);
  }
}

/** @type {Record<string, (notes: Notes, change: Change) => Notes>} */
const NOTE_CHANGES = {
  pin(notes, { node }) {
    const pins = toggled(notes.pins, node);
    return pins.length > MOST_PINS ? notes : { ...notes, pins };
  },
  pinAll(notes, { nodes }) {
    const pins = [...new Set([...notes.pins, ...nodes])].slice(0, MOST_PINS);
    return pins.length === notes.pins.length ? notes : { ...notes, pins };
  },
  hide: (notes, { node }) => ({ ...notes, hidden: toggled(notes.hidden, node) }),
  showAll: (notes) => ({ ...notes, hidden: [] }),
  label(notes, { key, text }) {
    const { [key]: _, ...others } = notes.labels;
    return { ...notes, labels: text ? { ...others, [key]: text } : others };
  },
  group(notes, { members, name }) {
    const own = new Set(members);
    const groups = withoutMembers(notes.groups, own);
    const made = { name: freeName(name, groups), members: [...own], automatic: false };
    return own.size ? { ...notes, groups: [...groups, made] } : notes;
  },
  ungroup: (notes, { name }) => ({
    ...notes,
    groups: notes.groups.filter((group) => group.name !== name),
    pins: [...new Set([...notes.pins, ...(notes.groups.find((g) => g.name === name)?.members ?? [])])].slice(0, MOST_PINS),
  }),
  /** A group of one stays, since its name is a person's own; an empty one is removed. */
  leave(notes, { node }) {
    const left = notes.groups.find((group) => group.members.includes(node));
    if (!left) return notes;
    const others = { ...left, members: left.members.filter((member) => member !== node), automatic: false };
    return {
      ...notes,
      groups: notes.groups.flatMap((group) => (group !== left ? [group] : others.members.length ? [others] : [])),
      pins: [...new Set([...notes.pins, node])].slice(0, MOST_PINS),
    };
  },
  rename(notes, { name, text }) {
    const others = notes.groups.filter((group) => group.name !== name);
    const free = freeName(text, others);
    const { [name]: place, ...places } = notes.places;
    return {
      ...notes,
      groups: notes.groups.map((group) =>
        group.name === name ? { ...group, name: free, automatic: false } : group,
      ),
      places: place ? { ...places, [free]: place } : notes.places,
    };
  },
  suggest(notes, { groups }) {
    const taken = new Set(notes.groups.filter((g) => !g.automatic).flatMap((g) => g.members));
    let all = notes.groups.filter((group) => !group.automatic);
    for (const group of groups) {
      const members = group.members.filter((/** @type {string} */ member) => !taken.has(member));
      if (members.length > 1) all = [...all, { ...group, members, name: freeName(group.name, all) }];
    }
    return { ...notes, groups: all };
  },
  move: (notes, { name, x, y }) => ({ ...notes, places: { ...notes.places, [name]: [x, y] } }),
  tidy: (notes) => (Object.keys(notes.places).length ? { ...notes, places: {} } : notes),
  load: (_, { annotations }) => notesFrom(annotations),
  revert: (_, { file }) => file,
};

/**
 * A label of a feature holds for all prompts of its dictionary; removing it here removes it
 * everywhere, unless it was of this graph alone.
 * @param {Mine} mine
 * @param {Notes} notes
 * @param {Change} change
 * @returns {Mine}
 */
function relabelled(mine, notes, { key, text, dictionary, feature }) {
  if (!dictionary || !feature) return mine;
  const { [feature]: known, ...others } = mine[dictionary] ?? {};
  if (!text && (notes.labels[key] ?? known) !== known) return mine;
  return { ...mine, [dictionary]: text ? { ...others, [feature]: text } : others };
}

/** @template T @param {T[]} items @param {T} item */
function toggled(items, item) {
  return items.includes(item) ? items.filter((other) => other !== item) : [...items, item];
}

/**
 * Groups without these nodes; empty groups are removed.
 * @param {Group[]} groups
 * @param {Set<string>} gone
 */
function withoutMembers(groups, gone) {
  return groups
    .map((group) => ({ ...group, members: group.members.filter((member) => !gone.has(member)) }))
    .filter((group) => group.members.length);
}

/** The name, or the first of "name (2)", "name (3)", … that is unused. @param {string} name @param {Group[]} groups */
function freeName(name, groups) {
  const taken = new Set(groups.map((group) => group.name));
  let free = name;
  for (let number = 2; taken.has(free); number++) free = `${name} (${number})`;
  return free;
}

/** A person's label of a node, else the file's. @param {Graph} graph @param {Notes} notes @param {number} row */
function labelOf(graph, notes, row) {
  const key = featureKey(graph.names[row]);
  return notes.labels[graph.names[row]] ?? (key ? notes.labels[key] : undefined) ?? graph.labels[row];
}
