"""What the page says of its picture: a legend on the screen and in drawings, and words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.analysis.prune import PruneSettings, prune
from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, viewed
from tests.test_glossary import rows
from tests.test_viewer import settle
from tests.test_viewer_edges import FEW, crowded
from tests.test_viewer_head_nodes import head_nodes
from viz.page.page import write_page

pytestmark = needs_chromium
SMALL = {"width": 390, "height": 844}
SVG = "paint(viewer, 'graph', svgPen).file()"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tmp_path_factory.mktemp("legend") / "page.html"
    write_page(crowded(FEW, 16), found)
    return found


def legend(page: Page) -> list[str]:
    settle(page)
    return page.locator("#legend .kind, #legend .entry").all_inner_texts()


def texts(page: Page) -> list[str]:
    """All texts of the drawing that the page would save."""
    return [one.text or "" for one in ElementTree.fromstring(page.evaluate(SVG)).iter() if one.text]


def test_the_legend_has_what_occurs_and_covers_nothing(browser: Browser, path: Path):
    with viewed(browser, path) as found:
        lines = ["raises", "lowers", "influence"]
        assert legend(found.page) == ["token", "bias", "feature", "error", "logit", *lines]
        for size in ({"width": 1440, "height": 900}, {"width": 1024, "height": 768}, SMALL):
            found.page.set_viewport_size(size)  # pyright: ignore[reportArgumentType]
            settle(found.page)
            plot = found.page.locator(".plot").bounding_box()
            beside = found.page.locator("#legend").bounding_box()
            assert plot is not None
            assert beside is not None
            assert beside["y"] >= plot["y"] + plot["height"] - 0.5
            assert beside["x"] + beside["width"] <= size["width"]


def test_a_dash_is_explained_where_there_are_dashes(browser: Browser, tmp_path: Path):
    write_page(head_nodes(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        assert legend(found.page)[-1] == "makes a head look"
        assert "head" in legend(found.page)


def test_drawings_have_the_legend_and_how_many_edges_are_drawn(browser: Browser, path: Path):
    with viewed(browser, path) as found:
        page = found.page
        stated = page.locator("#legend .budget [role=status]")
        assert {*legend(page), stated.inner_text()} <= {*texts(page)}
        assert stated.inner_text().startswith("the strongest ")
        page.evaluate("viewer.dispatch({type: 'set', view: {drawn: 1}})")
        settle(page)
        assert re.fullmatch(r"all [\d,]+ edges", stated.inner_text())
        assert stated.inner_text() in texts(page)
        strokes = "overviewStrokes(viewer.scene(0), viewer.faint(0)).length"
        curves = re.findall(
            r'<path d="M[^"]*C[^"]*" fill="none" stroke="(#\w+)"', page.evaluate(SVG)
        )
        assert sum(colour != "#ffffff" for colour in curves) == page.evaluate(strokes)


def test_a_drawing_is_light_whatever_the_page_is(browser: Browser, path: Path):
    with viewed(browser, path) as found:
        light = found.page.evaluate(SVG)
        found.page.evaluate("viewer.dispatch({type: 'set', view: {theme: 'dark'}})")
        settle(found.page)
        assert found.page.evaluate("viewer.palette.paper") != "#ffffff"
        assert found.page.evaluate(SVG) == light
        assert found.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_words_of_the_page_are_those_of_the_glossary(browser: Browser, path: Path):
    glossary = {cells[0]: cells[1] for cells in rows()}
    with viewed(browser, path) as found:
        page = found.page
        page.keyboard.press("w")
        table = page.locator("dialog table.words")
        expect(table).to_be_visible()
        words = dict(
            zip(*(table.locator(cell).all_inner_texts() for cell in ("th", "td")), strict=True)
        )
        page.keyboard.press("Escape")
        expect(table).to_be_hidden()
        page.locator('[data-key="Words"]').click()
        expect(table).to_be_visible()
    assert {"replacement", "completeness", "influence", "share", "weight"} <= {*words}
    for word, meaning in words.items():
        definition = glossary.get(word) or glossary.get(f"{word} score")
        if word != "edges drawn":
            assert definition is not None
            assert definition in meaning


def as_part(graph: AttributionGraph) -> AttributionGraph:
    """A pruned graph, whose header knows how many features it had."""
    checks = graph.provenance.checks.model_copy(update={"expanded_features": 160})
    traced = graph.provenance.model_copy(update={"checks": checks})
    return prune(replace(graph, provenance=traced), PruneSettings(0.6, 0.9))


def test_a_pruned_graph_is_shown_whole(browser: Browser, tmp_path: Path):
    pruned = as_part(crowded(FEW, 16))
    assert pruned.is_part
    write_page(pruned, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        kept = found.page.evaluate("viewer.pruning(0).kept")
        assert (kept["nNodes"], kept["nEdges"]) == (len(pruned), pruned.weights.nnz)
        assert found.page.evaluate("[viewer.view.nodes, viewer.view.edges]") == [1, 1]
