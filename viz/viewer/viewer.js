// @ts-check
// Viewer: the state, cached values derived from it, and reactions to changes.
"use strict";

/**
 * @typedef {{kept: Kept, scores: Scores, edges: Int32Array}} Pruning
 */

class Viewer {
  /** @param {any} payload */
  constructor(payload) {
    /** @type {Graph[]} */
    this.graphs = payload.graphs.map(readGraph);
    /** @type {{of: [number, number], sides: any[]}[]} */
    this.pairs = payload.pairs;
    this.served = Boolean(payload.served); // by headwater serve, which stores annotations
    /** @type {Record<string, string>} */
    this.regimes = payload.regimes; // what each means
    this.state = restoredState(this.graphs);
    /** @type {{graph: number, row: number} | null} */
    this.hovered = null;
    this.chosen = new Set(/** @type {string[]} */ ([])); // parts to be grouped
    this.most = { links: ROWS, table: ROWS, heads: FIRST_HEADS };
    this.unfolded = false; // whether all tokens of a long prompt are shown
    this.trial = noTrial(); // the intervention form
    /** @type {string | null} */
    this.order = null; // of the list, if a person chose one
    this.palette = readPalette();
    this.type = 1; // size of texts in the plot
    this.scheduled = false;
    this.held = false; // whether a button is pressed, or the page is printed
    this.late = false; // whether a redraw is pending
    this.changed = false; // whether there are changes to store
    this.raw = false; // whether raw numbers are shown
    /** @type {Map<string, {key: string, value: any}>} */
    this.known = new Map();
    /** @type {Plot[]} */
    this.plots = [];
  }

  get view() {
    return this.state.view;
  }

  /** The active graph. */
  get graph() {
    return this.graphs[this.view.active];
  }

  get notes() {
    return this.state.notes[this.view.active];
  }

  /** Notes with a person's labels of the dictionary. @param {number} number */
  labelled(number = this.view.active) {
    return withMine(this.graphs[number], this.state.notes[number], this.state.mine);
  }

  /** Graphs on the screen. */
  get shown() {
    return this.view.shown;
  }

  /** The graphs that are compared, by number; null if one is shown alone. @returns {Record<number, Side> | null} */
  get pair() {
    if (this.shown.length < 2) return null;
    const [first, second] = [...this.shown].sort((a, b) => a - b);
    return this.remembered(`pair ${first} ${second}`, null, () => {
      const pair = this.pairs.find(({ of }) => of[0] === first && of[1] === second);
      const sides = /** @type {any[]} */ (pair?.sides);
      return { [first]: readSide(sides[0], this.graphs[first]), [second]: readSide(sides[1], this.graphs[second]) };
    });
  }

  /** The overview of a graph, while it is what is shown; of two, boxes with the same place. @param {number} number @returns {Overview | null} */
  summary(number) {
    const overview = this.view.summary ? this.graphs[number].overview : null;
    return overview && { ...overview, drawings: this.pair?.[number].drawings ?? overview.drawings };
  }

  /** Row of the clicked node of a graph. @param {number} graph */
  clicked(graph = this.view.active) {
    const name = this.view.clicked[graph];
    return (name === null ? undefined : this.graphs[graph].place.get(name)) ?? null;
  }

  /** @param {Change} change */
  dispatch(change) {
    const before = this.state.mine;
    const view = this.view;
    this.state = reduce(this.state, change);
    if (this.state.mine !== before) keepMine(before, this.state.mine);
    if (this.view.active !== view.active) this.chosen = new Set();
    if (this.view.shown !== view.shown) this.hovered = null;
    this.changed = true;
    leaveAddress();
    this.schedule();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.late = this.held;
      if (!this.held) renderAll(this);
    });
  }

  /**
   * A value that is computed again only when what it depends on has changed.
   * @template T
   * @param {string} name
   * @param {any} dependsOn
   * @param {() => T} compute
   * @returns {T}
   */
  remembered(name, dependsOn, compute) {
    const key = JSON.stringify(dependsOn);
    const known = this.known.get(name);
    if (known?.key === key) return known.value;
    const value = compute();
    this.known.set(name, { key, value });
    return value;
  }

  /** What pruning leaves of a graph. @param {number} number @returns {Pruning} */
  pruning(number) {
    const { nodes, edges, keepErrors } = this.view;
    return this.remembered(`pruning ${number}`, [nodes, edges, keepErrors], () => {
      const graph = this.graphs[number];
      const kept = pruned(graph, { nodes, edges, keepErrors });
      const left = new Int32Array(kept.nEdges);
      let place = 0;
      for (let e = 0; e < graph.links; e++) if (kept.edge[e]) left[place++] = e;
      return { kept, scores: scoresOfPruned(graph, kept), edges: left };
    });
  }

  /** Visible nodes. @param {number} number @returns {Uint8Array} */
  visible(number) {
    const { view } = this;
    const notes = this.state.notes[number];
    return this.remembered(`visible ${number}`, this.shownBy(number), () => {
      const own = { ...view, tokens: view.tokens && this.positions(number, view.tokens) };
      const visible = visibleNodes(this.graphs[number], this.pruning(number).kept, own, notes, view.clicked[number]);
      for (const { source, target } of this.pathEdges(number) ?? []) visible[source] = visible[target] = 1;
      return visible;
    });
  }

  /** Reason for which a node is hidden; empty if it is visible. @param {number} number @returns {(row: number) => string} */
  hiddenBy(number) {
    const [visible, { kept }, own] = [this.visible(number), this.pruning(number), new Set(this.state.notes[number].hidden)];
    const cause = (/** @type {number} */ row) => (own.has(this.graphs[number].names[row]) ? "hidden by you" : kept.node[row] ? "hidden by a filter" : "hidden by pruning");
    return (row) => (visible[row] ? "" : cause(row));
  }

  /** Column of each position of a graph. @param {number} number @returns {number[]} */
  columnOf(number) {
    return this.pair?.[number].columnOf ?? this.graphs[number].tokens.map((_, pos) => pos);
  }

  /** Positions of a graph that are in these columns. @param {number} number @param {number[]} columns */
  positions(number, columns) {
    const columnOf = this.columnOf(number);
    return columns.map((column) => columnOf.indexOf(column)).filter((pos) => pos >= 0);
  }

  /** The smallest layout with all visible nodes. @param {number} number */
  level(number) {
    const levelsOf = (/** @type {number} */ one) => this.pair?.[one].levels ?? this.graphs[one].levels;
    let level = 0;
    for (const one of this.shown) {
      const [levels, visible] = [levelsOf(one), this.visible(one)];
      while (level < levels.length - 1 && visible.some((seen, n) => seen && Number.isNaN(levels[level].x[n]))) level++;
    }
    return levelsOf(number)[level];
  }

  /** @param {number} number @returns {Focus | null} */
  focus(number) {
    const row = this.clicked(number);
    if (row === null) return null;
    const minus = this.view.minus && number === this.view.active ? this.graphs[number].place.get(this.view.minus) : undefined;
    return focusOn(this.graphs[number], this.visible(number), row, minus);
  }

  /** @param {number} number @returns {Scene} */
  scene(number) {
    const graph = this.graphs[number];
    const notes = this.labelled(number);
    const pinned = rowsOf(graph, [...notes.pins, ...notes.groups.filter((g) => !g.automatic).flatMap((group) => group.members)]);
    const focus = this.focus(number);
    const path = this.pathEdges(number);
    const hovered = this.hovered;
    const lit = this.lit(number);
    const alone = lit && !focus && !path ? Array.from(this.left(number).filter((e) => lit[e]).slice(0, MOST_DRAWN), (e) => drawnEdge(graph, e)) : null;
    const there = hovered && (hovered.graph === number ? hovered.row : (this.pair?.[hovered.graph]?.partner[hovered.row] ?? -1));
    const effects = drawnEffects(this, number);
    const lacking = lackingThere(this, number) !== null;
    const [width, height] = this.plots[this.shown.indexOf(number)].size();
    return {
      graph,
      frame: frameOf(this.level(number), width, height, limitedRange(this.level(number), this.view.range), this.type, this.type * Math.max(...this.shown.map((one) => roomAbove(this.graphs[one])))),
      palette: this.palette,
      visible: this.visible(number),
      edges: path ?? (focus ? drawnFor(graph, focus, this.view.links, pinned) : (alone ?? drawnBetween(graph, pinned))),
      lit,
      ends: alone && new Set(alone.flatMap(({ source, target }) => [source, target])),
      near: path ? new Map(path.flatMap(({ source, target, share }) => [[source, share], [target, share]])) : (focus?.near ?? (lacking ? new Map() : null)),
      clicked: focus?.row ?? null,
      cursor: there !== null && there >= 0 ? there : null,
      pinned,
      wanted: this.view.search ? found(graph, notes, this.view.search) : null,
      most: Math.max(...this.shown.map((one) => mostInfluence(this.graphs[one]))),
      difference: effects ? changesOf(graph, effects) : this.pair && this.view.colour === "difference" ? this.pair[number].difference : null,
      matched: this.pair ? this.pair[number].partner : null,
      groups: focus || path || lacking || this.view.search || !this.view.hulls ? [] : namedGroups(graph, notes),
      markOf: (row) => (isInput(graph, row) ? "" : changedMark(graph, notes, effects, row)),
      crossed: effects ? sharesLeft(graph, effects).map((share) => Number(Math.abs(share) < CROSSED)) : null,
    };
  }

  /** Edges that cross chosen heads first; null if no head is chosen. @param {number} number @returns {Uint8Array | null} */
  lit(number) {
    const { heads, crossing } = this.view;
    return this.remembered(`lit ${number}`, [heads, crossing], () => edgesOver(this.graphs[number], heads, crossing));
  }

  /** Edges of the strongest paths, while the paths panel is open. @param {number} number @returns {Drawn[] | null} */
  pathEdges(number) {
    const { view } = this;
    const graph = this.graphs[number];
    const from = view.from === null || number !== view.active ? undefined : graph.place.get(view.from);
    const to = this.clicked(number);
    if (view.tab !== "paths" || from === undefined || to === null || from === to) return null;
    const paths = strongestPaths(graph, Math.min(from, to), Math.max(from, to), MOST_PATHS);
    const edges = new Set(paths.flatMap((path) => path.edges));
    return [...edges].sort((a, b) => a - b).map((e) => drawnEdge(graph, e));
  }

  /** @param {number} graph @param {number | null} row @param {boolean} stay Whether a second click leaves it clicked. */
  click(graph, row, stay = false) {
    if (row === null) {
      this.dispatch({ type: "clear" });
      return;
    }
    this.most.links = ROWS;
    const other = this.pair?.[graph].partner[row] ?? -1;
    const there = this.shown.find((one) => one !== graph);
    const partner = other >= 0 && there !== undefined ? this.graphs[there].names[other] : null;
    this.dispatch({ type: "click", graph, node: this.graphs[graph].names[row], partner, stay });
  }

  /** @param {number} graph @param {number | null} row */
  point(graph, row) {
    if (this.hovered?.row === row && this.hovered?.graph === graph) return;
    if (row === null && !this.hovered) return;
    this.hovered = row === null ? null : { graph, row };
    this.shown.forEach((number, place) => {
      if (this.summary(number)) return;
      const scene = this.scene(number);
      this.plots[place].draw(scene, this.faint(number));
      const there = scene.cursor;
      this.plots[place].showTooltip(there === null ? null : tipLines(this, number, there), there);
    });
    markPointed(this);
  }

  /** Edges that are drawn whether or not a node is clicked, strongest first. @param {number} number @returns {ArrayLike<number>} */
  faint(number) {
    return this.view.faint ? this.budget(number).edges : [];
  }

  /** Those of the remaining edges that are drawn. @param {number} number @returns {Budget} */
  budget(number) {
    const { drawn } = this.view;
    return this.remembered(`budget ${number}`, [drawn, this.shownBy(number)], () => budgetOf(this.graphs[number], this.left(number), drawn));
  }

  /** All that the visible nodes and edges of a graph depend on. @param {number} number */
  shownBy(number) {
    const { nodes, edges, keepErrors, without, layers, tokens, frequency, from, tab, active, shown, clicked } = this.view;
    return [nodes, edges, keepErrors, without, layers, tokens, frequency, from, tab, active, shown, clicked[number], this.state.notes[number]];
  }

  /** Edges between visible nodes that pruning leaves, strongest first. @param {number} number @returns {Int32Array} */
  left(number) {
    return this.remembered(`left ${number}`, this.shownBy(number), () => {
      const [graph, visible] = [this.graphs[number], this.visible(number)];
      return this.pruning(number).edges.filter((e) => visible[graph.source[e]] && visible[graph.target[e]]);
    });
  }
}
