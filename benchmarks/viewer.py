"""The page: time to the first picture, response times, size of its data.

    python benchmarks/viewer.py --out benchmarks/results/viewer.md

Graphs are random, with as many edges per node as traced ones, and the page shows all of them:
thresholds are 1 and all edges are drawn, not only the 300 of a page that is opened.  The browser is
Debian's chromium without a screen and without a GPU.  Limits: with 2,000 nodes and 50,000 edges the
first picture in 1.5 s, the response to a click and to a step of a slider in 100 ms; 10,000 nodes
usable; 3 MB of data for 5,000 nodes.  A response is the next picture, with all nodes and the
strongest 900 edges; all edges follow, drawn in portions of as many.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from reading import random_graph

from graphs.core.annotations import NO_ANNOTATIONS
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, Example
from viz.page.page import page_text

CASES = (
    (2000, 100_000),
    (5000, 250_000),
    (10_000, 500_000),
)  # nodes, edges before the page's bound
REPEATS = 15
LIMITS = {"first picture": 1500.0, "click": 100.0, "slider": 100.0}  # milliseconds, at 2,000 nodes
LARGEST_DATA = 3e6  # bytes at 5,000 nodes

_MEASURE = """async (repeats) => {
    const picture = () => new Promise((r) => requestAnimationFrame(() => setTimeout(() => {
        // A pixel that is read is one that was drawn.
        const canvases = document.querySelectorAll(".plot > canvas");
        for (const one of canvases) one.getContext("2d").getImageData(0, 0, 1, 1);
        r();
    })));
    const settled = async () => {
        while (viewer.view.faint && !viewer.plots[0].root.dataset.settled) await picture();
    };
    const timed = async (deed) => {
        const first = [], all = [];
        for (let i = 0; i < repeats; i++) {
            await settled();
            const start = performance.now();
            deed(i);
            await picture();
            first.push(performance.now() - start);
            await settled();
            all.push(performance.now() - start);
        }
        return [first, all];
    };
    const graph = viewer.graph;
    const order = [...graph.names.keys()].sort((a, b) => graph.arrived[b] - graph.arrived[a]);
    const set = (view) => viewer.dispatch({type: "set", view});
    set({nodes: 1, edges: 1, drawn: 1});
    await picture();
    const found = {
        click: await timed((i) => viewer.click(0, order[i])),
        slider: (viewer.click(0, null), await timed((i) => set({nodes: i % 2 ? 1 : 0.9}))),
        point: await timed((i) => viewer.point(0, order[i])),
        zoom: await timed((i) => set({range: [0.01 * i, 0.9, 0, 1]})),
    };
    set({faint: false, range: null});
    found.clickWithoutEdges = await timed((i) => viewer.click(0, order[i]));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [1000, 500];
    const pen = canvas.getContext("2d");
    const start = performance.now();
    for (let i = 0; i < 10_000; i++) {
        pen.beginPath(); pen.moveTo(i % 997, 0); pen.lineTo((i * 7) % 991, 500); pen.stroke();
    }
    pen.getImageData(0, 0, 1, 1);
    return {...found, yardstick: performance.now() - start};
}"""


def described(graph: AttributionGraph) -> AttributionGraph:
    """A graph whose features all have labels, promoted tokens and examples."""
    example = Example(tokens=(" word",) * 20, activations=tuple(np.linspace(0, 3, 20).tolist()))
    features = np.flatnonzero(graph.nodes.index >= 0)
    keys = {
        f"{graph.nodes.layer[row]}/{graph.nodes.index[row]}"
        for row in features.tolist()
        if graph.nodes.layer[row] >= 0
    }
    tokens = (" one", " two", " three", " four", " five")
    return replace(
        graph,
        descriptions={
            key: Description(
                label=f"words of kind {key}",
                promoted=tokens,
                suppressed=tokens,
                largest=3.0,
                histogram=tuple(range(20, 0, -1)),
                frequency=0.01,
                examples=(example,) * 5,
            )
            for key in keys
        },
    )


def measured(browser: Browser, path: Path) -> dict[str, Any]:
    firsts: list[float] = []
    for _ in range(5):
        page = opened(browser, path)
        firsts.append(
            page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        )
        drawn = page.evaluate("performance.getEntriesByName('drawn')[0].startTime")
        firsts[-1] = max(firsts[-1], drawn)
        page.close()
    page = opened(browser, path)
    found = page.evaluate(_MEASURE, REPEATS)
    page.close()
    return {**found, "first picture": firsts}


def opened(browser: Browser, path: Path) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")
    return page


def line(nodes: int, text: str, found: dict[str, Any]) -> tuple[str, list[str]]:
    """A row of the table, and the limits that it exceeds."""
    size = len(text.partition('id="data">')[2].partition("</script>")[0].encode())
    median = statistics.median
    answers = {"first picture": median(found["first picture"])}
    answers |= {name: median(found[name][0]) for name in ("click", "slider", "point", "zoom")}
    missed = [
        f"{name}: {answers[name]:.0f} ms, the limit is {limit:.0f}"
        for name, limit in LIMITS.items()
        if nodes == 2000 and answers[name] > limit
    ]
    if nodes == 5000 and size > LARGEST_DATA:
        missed.append(f"data: {size / 1e6:.2f} MB, the limit is {LARGEST_DATA / 1e6:.0f}")
    cells = [f"{nodes:,}", f"{size / 1e6:.2f} MB", *(f"{value:.0f}" for value in answers.values())]
    cells += [f"{median(found['slider'][1]):.0f}", f"{median(found['clickWithoutEdges'][0]):.0f}"]
    cells += [f"{answers['click'] / found['yardstick']:.2f}", f"{found['yardstick']:.0f}"]
    return f"| {' | '.join(cells)} |", missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[str] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for nodes, edges in CASES:
            graph = described(random_graph(nodes, edges, 0))
            text = page_text([(graph, NO_ANNOTATIONS)], nodes)
            path = Path(folder) / f"{nodes}.html"
            path.write_text(text, encoding="utf-8")
            row, faults = line(nodes, text, measured(browser, path))
            print(row, flush=True)
            rows.append(row)
            missed += faults
        version = browser.version
        browser.close()
    report = f"""# The page

{date.today()}, {platform.machine()}, 2 cores, no GPU, Chromium {version}; medians in milliseconds.

| nodes | data | first picture | click | slider step | pointing | zoom | slider, all edges | \
click, no faint edges | click / yardstick | yardstick: 10,000 lines on a canvas |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
{chr(10).join(rows)}

{chr(10).join(f"Exceeded: {fault}." for fault in missed) or "All limits are met."}
"""
    print(report)
    if arguments.out:
        arguments.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
