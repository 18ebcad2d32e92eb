// @ts-check
// Actions of buttons and keys other than changes of the state.
"use strict";

/** Show a message in the status line. @param {string} text */
function announce(text) {
  byId("status").textContent = text;
  clearTimeout(announced);
  announced = setTimeout(() => (byId("status").textContent = ""), 4000 + 60 * text.length); // time to read it
}
let announced = 0;

/** @param {Viewer} viewer */
function shareLink(viewer) {
  const hash = sharedHash(viewer.graphs, viewer.state);
  if (hash === null) {
    announce("The state is too large for an address: save the annotations as a file instead.");
    return;
  }
  try {
    history.replaceState(null, "", hash);
  } catch {
    announce("A page in a notebook has no address of its own: open it as a file, or save the annotations.");
    return;
  }
  const copy = navigator.clipboard ? navigator.clipboard.writeText(location.href) : Promise.reject();
  copy.then(
    () => announce("The address now contains the state and was copied."),
    () => announce("The address now contains the state: copy it from the address bar."),
  );
}

/** Remove the state from the address, since it would override later changes. */
function leaveAddress() {
  if (!location.hash.startsWith("#s=")) return;
  history.replaceState(null, "", location.pathname + location.search);
}

/** @param {View} view */
function isDark({ theme }) {
  return theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/** @param {Viewer} viewer */
function switchTheme(viewer) {
  viewer.dispatch({ type: "set", view: { theme: isDark(viewer.view) ? "light" : "dark" } });
}

function showHelp() {
  const help = /** @type {HTMLDialogElement} */ (byId("help"));
  help.replaceChildren(helpPanel(), element("form", { method: "dialog" }, element("button", {}, "Close")));
  help.showModal();
}

function showWords() {
  const help = /** @type {HTMLDialogElement} */ (byId("help"));
  help.replaceChildren(wordsPanel(), element("form", { method: "dialog" }, element("button", {}, "Close")));
  help.showModal();
}

/** @param {Viewer} viewer */
function groupChosen(viewer) {
  const notes = viewer.labelled();
  const parts = partsOf(viewer.graph, notes, viewer.view.unfolded).filter((part) => viewer.chosen.has(part.name));
  viewer.chosen = new Set();
  if (!parts.length) {
    viewer.schedule();
    return;
  }
  const members = parts.flatMap(({ rows }) => rows.map((row) => viewer.graph.names[row]));
  const named = parts.find((part) => part.isGroup);
  const strongest = strongestOf(viewer.graph, parts.flatMap(({ rows }) => rows));
  const name = named ? named.name : shortened(shortLabel(viewer.graph, notes, strongest) || viewer.graph.names[strongest], 40);
  viewer.dispatch({ type: "group", members, name });
}

/** Go to the label of a node. @param {Viewer} viewer @param {number} row */
function renameNode(viewer, row) {
  viewer.click(viewer.view.active, row, true);
  whenDrawn(() => {
    const field = /** @type {HTMLInputElement | null} */ (byKey("label"));
    field?.focus();
    field?.select();
  });
}

/** Replace the name of a group by an input field. @param {Viewer} viewer @param {string} name */
function renameGroup(viewer, name) {
  const button = byKey(`part ${name}`);
  const number = viewer.notes.groups.findIndex((group) => group.name === name);
  const field = /** @type {HTMLInputElement} */ (element("input", {
    value: name, "aria-label": `new name of ${name}`,
    keydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") field.value = name;
      if (event.key === "Enter" || event.key === "Escape") {
        field.blur();
        focusSoon([`part ${viewer.notes.groups[number].name}`]);
      }
      event.stopPropagation();
    },
    blur: () => {
      const text = field.value.trim();
      field.replaceWith(/** @type {Element} */ (button));
      if (text && text !== name) viewer.dispatch({ type: "rename", name, text });
    },
  }));
  button?.replaceWith(field);
  field.select();
}

/**
 * @param {Viewer} viewer
 * @param {"graph" | "subgraph"} what
 * @param {"png" | "svg"} format
 */
async function savePicture(viewer, what, format) {
  const overview = what === "graph" ? viewer.summary(viewer.view.active) : null;
  if (overview) {
    await saveOverview(viewer, overview, format);
    return;
  }
  const name = `${fileName(viewer.graph)}${what === "graph" ? "" : "-subgraph"}.${format}`;
  if (format === "svg") {
    const pen = paint(viewer, what, svgPen);
    download(name, new Blob([pen.file()], { type: "image/svg+xml" }));
    return;
  }
  const canvas = document.createElement("canvas");
  paint(viewer, what, (width, height) => {
    [canvas.width, canvas.height] = [2 * width, 2 * height];
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.scale(2, 2);
    return canvasPen(context);
  });
  canvas.toBlob((blob) => blob && download(name, blob));
}

/** Save the summary as it would be printed: light, at the width of a page. @param {Viewer} viewer @param {Overview} overview @param {"png" | "svg"} format */
async function saveOverview(viewer, overview, format) {
  const [drawing, name] = [overview.drawings[0], `${fileName(viewer.graph)}-summary.${format}`];
  const file = new Blob([overviewFile(overview, drawing, lightPalette(), boxesLeft(viewer.graph, overview, drawnEffects(viewer, viewer.view.active)))], { type: "image/svg+xml" });
  if (format === "svg") {
    download(name, file);
    return;
  }
  const image = new Image();
  image.src = URL.createObjectURL(file);
  await image.decode();
  const canvas = document.createElement("canvas");
  const scale = PRINTED / 72; // dots per point
  [canvas.width, canvas.height] = [Math.round(drawing.width * scale), Math.round((drawing.width * scale * image.naturalHeight) / image.naturalWidth)];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(image.src);
  canvas.toBlob((blob) => blob && download(name, blob));
}
const PRINTED = 300; // dots per inch

/**
 * @template {Pen} P
 * @param {Viewer} viewer
 * @param {"graph" | "subgraph"} what
 * @param {(width: number, height: number) => P} makePen
 * @returns {P}
 */
function paint(viewer, what, makePen) {
  if (what === "subgraph") return /** @type {P} */ (paintSubgraph(makePen, viewer.graph, viewer.labelled(), lightPalette(), roomIn(byId("parts"), viewer.view.fit), viewer.view.unfolded));
  return paintGraphs(viewer, viewer.shown, makePen, 30);
}

/**
 * The graphs on the screen, side by side and light whatever the page is, each with its legend.
 * @template {Pen} P
 * @param {Viewer} viewer
 * @param {number[]} numbers
 * @param {(width: number, height: number) => P} makePen
 * @param {number} head Height of the headings above them in pixels; 0 for none.
 * @returns {P}
 */
function paintGraphs(viewer, numbers, makePen, head = 0) {
  const palette = lightPalette();
  const sizes = numbers.map((number) => viewer.plots[viewer.shown.indexOf(number)].size());
  const legends = numbers.map((number, i) => placedEntries(drawnEntries(viewer, number), sizes[i][0] - MARGIN.left - MARGIN.right));
  const below = Math.max(...sizes.map(([, height]) => height)) + head;
  const all = [sizes.reduce((sum, [width]) => sum + width, 0), below + Math.max(...legends.map(({ height }) => height)) + MARGIN.under];
  const pen = makePen(all[0], all[1]);
  pen.box(0, 0, all[0], all[1], palette.paper);
  let left = 0;
  numbers.forEach((number, i) => {
    const scene = { ...viewer.scene(number), palette, cursor: null };
    scene.frame = { ...scene.frame, left: scene.frame.left + left, top: scene.frame.top + head };
    drawAxes(pen, scene);
    drawScene(pen, scene, viewer.faint(number));
    const heading = shortened(viewer.graphs[number].heading, Math.floor(sizes[i][0] / 9));
    if (head) pen.text(heading, left + MARGIN.left, 18, { color: palette.ink, size: 15, bold: true });
    drawLegend(pen, palette, legends[i].placed, left + MARGIN.left, below);
    left += sizes[i][0];
  });
  return pen;
}

/** Store the state in the browser shortly after the last change. @param {Viewer} viewer */
function rememberSoon(viewer) {
  clearTimeout(remembering);
  if (!viewer.changed) return;
  remembering = setTimeout(() => {
    const said = problems.length;
    store(viewer.graphs, viewer.state);
    if (problems.length > said) renderFiled(viewer);
  }, 200);
}
let remembering = 0;
