"""What the page draws: labels of predictions that can be read, and a page on paper."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from tests.browser import LAPTOP, leave, needs_chromium, new_window, viewed, visit
from tests.graph_oracles import make_graph
from tests.test_viewer_edges import crowded
from viz.page.page import write_page

pytestmark = needs_chromium

_TEXTS = """() => {
    const text = paintGraphs(viewer, [0], svgPen).file();
    const drawing = new DOMParser().parseFromString(text, "text/xml");
    return [...drawing.querySelectorAll('text[transform*="rotate(-"][text-anchor="start"]')]
        .map((one) => {
            const [x, y, angle] = one.getAttribute("transform").match(/[-\\d.]+/g).map(Number);
            const size = Number(one.getAttribute("font-size"));
            const text = one.textContent;
            return {x, y, angle, size, text, width: widthOf(text, size)};
        });
}"""


def predicting(count: int, columns: int) -> AttributionGraph:
    """A graph of so many predictions; the more columns, the less room has each."""
    tokens = tuple(f" w{pos}" for pos in range(columns))
    names = [f"token:{pos}@{pos}" for pos in range(columns)]
    features = [f"feature:0/{pos}@{pos}" for pos in range(columns)]
    logits = [f"logit:{i}@{columns - 1}" for i in range(count)]
    edges = dict.fromkeys(zip(names, features, strict=True), 1.0)
    edges |= {(feature, logit): 1.0 for feature in features for logit in logits}
    probabilities = [0.4 * 0.7**i for i in range(count)]
    return make_graph([*names, *features, *logits], edges, probabilities, tokens=tokens)


@pytest.mark.parametrize(("count", "columns"), [(1, 4), (2, 40), (4, 4), (12, 60)])
def test_labels_of_all_predictions_are_drawn_apart_and_inside(
    browser: Browser, tmp_path: Path, count: int, columns: int
):
    graph = predicting(count, columns)
    labels = {
        str(graph.nodes[row]): f"t{i} with more letters than there is room for"
        for i, row in enumerate(graph.target_rows().tolist())
    }
    write_page(graph, tmp_path / "page.html", Annotations(labels=labels))
    with viewed(browser, tmp_path / "page.html") as found:
        for size in (LAPTOP, ViewportSize(width=2560, height=1440)):
            found.page.set_viewport_size(size)
            settled(found.page)
            texts = found.page.evaluate(_TEXTS)
            assert sorted(one["text"].split()[0] for one in texts) == sorted(
                f"t{i}" for i in range(count)
            )
            assert_apart_and_inside(texts, found.page.evaluate("viewer.plots[0].root.clientWidth"))


def assert_apart_and_inside(texts: list[dict[str, float]], width: float) -> None:
    """Slanted texts that begin on one line, in a picture of this width."""
    texts = sorted(texts, key=lambda one: one["x"])
    slant = math.radians(-texts[0]["angle"])
    for one, other in pairwise(texts):
        assert (other["x"] - one["x"]) * math.sin(slant) >= one["size"]
        assert other["y"] == one["y"]
    for one in texts:
        assert one["x"] + one["width"] * math.cos(slant) <= width
        assert one["y"] - one["width"] * math.sin(slant) >= 0


def settled(page: Page) -> None:
    page.wait_for_timeout(100)
    page.evaluate("() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")


def test_a_label_leads_to_its_own_prediction(browser: Browser, tmp_path: Path):
    """Lines from labels to marks end at marks, each at another."""
    write_page(predicting(10, 60), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        ends, marks = found.page.evaluate(
            """() => {
                const ends = [];
                const {graph, frame} = viewer.scene(0);
                const line = (path) => ends.push(path.match(/[-\\d.]+/g).map(Number));
                const pen = {...svgPen(1, 1), line};
                const targets = [...graph.names.keys()].filter((n) => isTarget(graph, n));
                drawOutputs(pen, viewer.scene(0), new Float64Array(graph.count).fill(3), targets);
                return [ends.map((end) => end.slice(2)), targets.map((n) =>
                    [acrossOf(frame, frame.level.x[n]), downOf(frame, frame.level.y[n]) - 5])];
            }"""
        )
    assert sorted([round(x, 1), round(y, 1)] for x, y in marks) == sorted(ends)


def test_a_dark_page_is_light_on_paper_and_its_graph_a_drawing(browser: Browser, tmp_path: Path):
    write_page(predicting(2, 4), tmp_path / "page.html")
    page = new_window(browser)
    page.emulate_media(color_scheme="dark")
    visit(page, tmp_path / "page.html")
    page.wait_for_selector("html[data-ready]")
    page.evaluate(
        """window.addEventListener("beforeprint", () => { window.printed = [
            document.documentElement.dataset.theme,
            document.querySelector(".printed rect").getAttribute("fill"),
            document.querySelectorAll(".printed text").length > 8,
        ]; })"""
    )
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate("window.printed") == ["light", "#ffffff", True]
    settled(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator(".printed").count() == 0
    leave(page)


def test_one_cannot_zoom_or_pan_away_from_the_graph(browser: Browser, tmp_path: Path):
    write_page(predicting(2, 4), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        box = page.locator(".plot").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for way in (-1, 1):
            for _ in range(25):
                page.mouse.wheel(0, way * 700)
                settled(page)
            page.wait_for_timeout(400)
            left, right, bottom, top = page.evaluate("viewer.scene(0).frame.range")
            unit = page.evaluate("viewer.scene(0).frame.unit")
            assert right - left <= 1
            assert top - bottom <= 1
            assert min(box["width"] / unit[0], box["height"] / unit[1]) >= 4  # nodes beside another
        for _ in range(4):
            page.mouse.move(box["x"] + 100, box["y"] + 200)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] - 50, box["y"] + 220, steps=4)
            page.mouse.up()
            page.wait_for_timeout(200)
        assert page.evaluate("viewer.scene(0).frame.range")[0] >= -0.201
        page.evaluate("viewer.dispatch({type: 'set', view: {range: [5, 6, -9, -8]}})")
        settled(page)
        left, right, bottom, top = page.evaluate("viewer.scene(0).frame.range")
        assert left < 1
        assert top > 0
        page.locator('.modebar [data-title^="Home"]').click()
        settled(page)
        assert page.evaluate("viewer.scene(0).frame.range") == [0, 1, 0, 1]


def test_no_edge_strikes_a_label_through(browser: Browser, tmp_path: Path):
    """Of edges between nodes of one row and all others, no colour is left behind a label."""
    graph = crowded(1500, 16)
    labels = {str(node): "a label of some length" for node in graph.nodes}
    write_page(graph, tmp_path / "page.html", Annotations(labels=labels))
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'set', view: {drawn: 1, nodes: 1, edges: 1}})")
        settled(page)
        coloured = page.evaluate(
            """(() => {
                const {root} = viewer.plots[0];
                const found = [];
                const pen = {...svgPen(1, 1), box: (...box) => found.push(box.slice(0, 4))};
                const scene = viewer.scene(0);
                drawLabels(pen, scene, radii(scene.graph, scene.frame, scene.most));
                const all = document.createElement("canvas");
                [all.width, all.height] = [root.clientWidth, root.clientHeight];
                const context = all.getContext("2d", {willReadFrequently: true});
                for (const one of root.querySelectorAll(":scope > canvas")) {
                    context.drawImage(one, 0, 0, all.width, all.height);
                }
                const colourIn = ([x, y, width, height]) => {
                    const {data} = context.getImageData(x + 1, y + 1, width - 2, height - 2);
                    let most = 0;
                    for (let i = 0; i < data.length; i += 4) {
                        const own = data.subarray(i, i + 3);
                        const chroma = Math.max(...own) - Math.min(...own);
                        if (data[i + 3] > 250) most = Math.max(most, chroma);
                    }
                    return most;
                };
                return found.map(colourIn);
            })()"""
        )
        assert len(coloured) > 5
        assert max(coloured) < 30
        flat = page.evaluate(
            """(() => {
                const {frame} = viewer.scene(0);
                const curve = curveOf(frame, viewer.graph.place.get("bias:3"),
                    viewer.graph.names.findIndex((name) => name.startsWith("feature:3/")));
                return [curve[1], curve[3], curve[7], frame.unit[1] * lowestRow(frame.level)];
            })()"""
        )
        assert flat[0] == flat[2]
        assert 5 < flat[1] - flat[0] < flat[3]  # it runs below its row
