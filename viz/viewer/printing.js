// @ts-check
// Printing: in print the page is light, and graphs are vector drawings.
"use strict";

/** @param {Viewer} viewer */
function listenToPrinting(viewer) {
  window.addEventListener("beforeprint", () => {
    viewer.held = true; // no drawing for the screen meanwhile
    document.documentElement.dataset.theme = "light";
    viewer.palette = readPalette();
    viewer.shown.forEach((number, place) => {
      const drawing = element("div.printed", { role: "img", "aria-label": plotName(viewer.graphs[number]) });
      drawing.innerHTML = paintGraphs(viewer, [number], svgPen).file();
      viewer.plots[place].root.append(drawing);
    });
  });
  window.addEventListener("afterprint", () => {
    for (const drawing of document.querySelectorAll(".printed")) drawing.remove();
    viewer.held = false;
    renderAll(viewer);
  });
}
