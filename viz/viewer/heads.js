// @ts-check
// Heads: the panel of attention heads, and the filter of edges by the heads that they cross first.
"use strict";

const FIRST_HEADS = 12; // listed initially

/** What panels do with heads; null if nothing is known of them. @param {Viewer} viewer @returns {HeadEvents | null} */
function headEvents(viewer) {
  if (!viewer.graph.attention) return null;
  return {
    open: viewer.view.edge,
    lit: viewer.lit(viewer.view.active),
    onEdge: (edge) => viewer.dispatch({ type: "set", view: { edge } }),
    onHead: (head) => {
      const row = viewer.graph.place.get(head);
      if (row !== undefined && !lookOf(viewer.graph, head)) return viewer.click(viewer.view.active, row, true);
      viewer.dispatch({ type: "set", view: { head, tab: "heads" } });
      whenDrawn(() => byId("panel").scrollTo(0, 0));
    },
  };
}

/** @param {Viewer} viewer @param {PanelContext} context */
function headsPanel(viewer, context) {
  const { graph, view } = viewer;
  const { attention } = graph;
  if (!attention) return element("p.quiet", {}, "Nothing is known of attention heads in this graph.");
  const place = headPlace(view.head);
  return place && view.head && place.pos < graph.tokens.length ? headDetail(viewer, context, view.head, place) : headIndex(viewer, context, attention);
}

/** Heads by what they carry, and looks. @param {Viewer} viewer @param {PanelContext} context @param {Attention} attention */
function headIndex(viewer, context, attention) {
  const { graph } = viewer;
  const { carried, looks } = attention;
  if (!carried && hasHeadNodes(graph)) return headNodes(context);
  if (!carried) {
    return element("p", {}, "This graph knows what heads write into its nodes. Which heads carry its edges, and why they look where they look, is kept by ",
      element("code", {}, "headwater attention heads GRAPH --out FILE --html PAGE"));
  }
  const ranked = Array.from(carried.heads.keys()).filter((number) => carried.heads[number] > 0).sort((a, b) => carried.heads[b] - carried.heads[a]);
  const rows = ranked.slice(0, viewer.most.heads).map((number) => {
    const head = headText(attention, number);
    const look = looks.find((one) => `${one.layer}.${one.head}` === head);
    const to = headName(head, look ? look.query : graph.tokens.length - 1);
    return element("li", {},
      element("button.link.plain", { "data-key": `head ${head}`, click: () => context.heads?.onHead(to) },
        element("span.share", {}, percent(carried.heads[number])), element("span.what", {}, symbolOf(KIND.head), `head ${head}`), element("span.where", {}, ...(look ? lookWords(graph, look) : []))),
      filterButton(viewer, head));
  });
  return element("section", { "aria-label": "attention heads" },
    element("section.links", { "aria-label": "heads that carry most" },
      element("h3", {}, "Heads that carry most", element("span.count", {}, " of the influence along edges")),
      element("p.quiet", {}, `past all attention ${percent(carried.past)}, weaker heads of each edge ${percent(carried.rest)}`),
      element("ul", { keydown: stepThrough }, ...rows),
      ranked.length > viewer.most.heads && element("button.more", { "data-key": "heads more", click: () => ((viewer.most.heads = Infinity), viewer.schedule()) }, `all ${counted(ranked.length)}`)),
    looks.length > 0 && element("section.links", { "aria-label": "looks that write most" },
      element("h3", {}, "Looks", element("span.count", {}, " by what they write into nodes, of all influence")),
      element("ul", { keydown: stepThrough }, ...looks.map((look) => lookRow(context, look)))));
}

/** Heads that are nodes of the graph, by influence. @param {PanelContext} context */
function headNodes(context) {
  const { graph } = context;
  const rows = [...graph.names.keys()].filter((row) => graph.kind[row] === KIND.head).sort((a, b) => graph.influence[b] - graph.influence[a]);
  return element("section.links", { "aria-label": "head nodes" },
    element("h3", {}, "Head nodes", element("span.count", {}, ` ${counted(rows.length)}, by influence`)),
    element("ul", { keydown: stepThrough }, ...rows.map((row) => element("li", {},
      element("button.link.plain", { "data-key": graph.names[row], "data-node": graph.names[row], ...walking(context, row) },
        element("span.share", {}, percent(graph.influence[row])), element("span.what", {}, symbolOf(KIND.head), graph.labels[row]), element("span.where", {}, placeText(graph, row)))))));
}

/** Where a look goes. @param {Graph} graph @param {Look} look */
function lookWords(graph, look) {
  return [element("bdi", {}, tokenAt(graph, look.query)), " → ", element("bdi", {}, tokenAt(graph, look.key)), ` ${percent(look.attention[look.key])}`];
}

/** @param {PanelContext} context @param {Look} look */
function lookRow({ graph, heads }, look) {
  const name = headName(`${look.layer}.${look.head}`, look.query);
  return element("li", {}, element("button.link.plain", { "data-key": `look ${name}`, click: () => heads?.onHead(name) },
    element("span.share", {}, percent(look.carries)), element("span.what", {}, symbolOf(KIND.head), `head ${look.layer}.${look.head} @${look.query}`), element("span.where", {}, ...lookWords(graph, look))));
}

/** Adds a head to the filter, or removes it. @param {Viewer} viewer @param {string} head */
function filterButton(viewer, head) {
  const { heads } = viewer.view;
  return element("button.tool.toggle", {
    "data-key": `only ${head}`, "aria-pressed": String(heads.includes(head)), title: `keep only edges lit that cross head ${head} first`, "aria-label": `only edges over head ${head}`,
    click: () => viewer.dispatch({ type: "set", view: { heads: toggled(heads, head) } }),
  }, "only");
}

/** @param {Viewer} viewer @param {PanelContext} context @param {string} name @param {{head: string, pos: number}} place */
function headDetail(viewer, context, name, { head, pos }) {
  const { graph, view } = viewer;
  const [look, share, row] = [lookOf(graph, name), carriedBy(graph, head), graph.place.get(name)];
  const others = graph.attention?.looks.filter((one) => `${one.layer}.${one.head}` === head && one.query !== pos) ?? [];
  const known = [share !== null && `crossed first by ${percent(share)} of the influence along edges`, look && `writes ${percent(look.carries)} of all influence into nodes here`];
  return element("section.detail", { "aria-label": "the chosen head" },
    element("p.actions", {}, element("button", { "data-key": "all heads", click: () => viewer.dispatch({ type: "set", view: { head: null } }) }, "← all heads")),
    element("h2", {}, symbolOf(KIND.head), `Head ${head}`, element("span.at", {}, " from ", tokenPlace(graph, pos))),
    element("p.quiet", {}, known.filter(Boolean).join("; ")),
    element("p.actions", {},
      share !== null && element("button", { "data-key": `only ${head}`, "aria-pressed": String(view.heads.includes(head)), click: () => viewer.dispatch({ type: "set", view: { heads: toggled(view.heads, head) } }) }, "Only edges over it"),
      row !== undefined && element("button", { "data-key": "its node", "data-node": name, ...walking(context, row) }, "Its node"),
      ...others.map((one) => element("button", { "data-key": `from ${one.query}`, click: () => context.heads?.onHead(headName(head, one.query)) }, "from ", tokenPlace(graph, one.query)))),
    lookPanel(context, name));
}

/** Field for heads, least share and number of edges, in graphs with heads of edges. @param {Viewer} viewer @param {HTMLElement} place @param {(change: Partial<View>) => void} set */
function renderCrossing(viewer, place, set) {
  const { view, graph } = viewer;
  let field = /** @type {HTMLElement | null} */ (place.querySelector(".crossing"));
  if (!viewer.shown.some((one) => viewer.graphs[one].attention?.edges)) return field?.remove();
  if (!field) {
    const text = element("input", { type: "text", "data-key": "crossing", placeholder: "4.5, 4.4", "aria-label": "heads that edges cross first, as in 4.5",
      input: (/** @type {Event} */ event) => set({ heads: [...new Set(/** @type {HTMLInputElement} */ (event.target).value.match(/\d{1,4}\.\d{1,4}/g) ?? [])] }) });
    const least = element("input", { type: "number", min: 1, max: 100, step: 1, "data-key": "crossing share", "aria-label": "least share of an edge over them, in percent",
      input: (/** @type {Event} */ event) => {
        const value = Number(/** @type {HTMLInputElement} */ (event.target).value);
        if (value >= 0 && value <= 100) set({ crossing: value / 100 });
      } });
    field = element("span.crossing", { title: "edges that cross these heads first, with at least this share, stay lit" }, element("label", {}, "heads ", text), element("label", {}, " ≥ ", least, "%"), element("output", { role: "status" }));
    place.insertBefore(field, place.querySelector("[data-key=reset]"));
  }
  const [text, least] = /** @type {HTMLInputElement[]} */ ([...field.querySelectorAll("input")]);
  if (text !== document.activeElement) text.value = view.heads.join(", ");
  if (least !== document.activeElement) least.value = String(Math.round(1000 * view.crossing) / 10);
  /** @type {HTMLElement} */ (least.parentElement).hidden = !view.heads.length;
  /** @type {HTMLElement} */ (field.querySelector("output")).textContent = crossingText(viewer, graph);
}

/** How many of the remaining edges the filter leaves lit. @param {Viewer} viewer @param {Graph} graph */
function crossingText(viewer, graph) {
  const { heads, active } = viewer.view;
  const lit = viewer.lit(active);
  if (!heads.length) return "";
  if (!lit) return "no heads of edges in this graph";
  const left = viewer.left(active);
  const count = left.reduce((sum, edge) => sum + lit[edge], 0);
  const unknown = heads.filter((head) => !carriedBy(graph, head));
  const weaker = left.reduce((sum, edge) => sum + Number(!knowsHeads(graph, edge)), 0);
  return `${counted(count)} of ${counted(left.length)} edges cross ${heads.length > 1 ? "them" : "it"} first${unknown.length ? `; no edge crosses ${unknown.join(", ")} first` : ""}${weaker ? `; heads of ${counted(weaker)} weak edges are not in this page` : ""}`;
}
