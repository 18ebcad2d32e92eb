"""Stability in the page: what does not stay is drawn lighter, with a legend and numbers."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from graphs.comparison.stability import StabilitySettings, stability
from graphs.core.graph import AttributionGraph
from graphs.core.stability import Stability
from tests.browser import needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, TOKEN, click, small
from viz.page.page import write_page
from viz.page.part import part
from viz.page.stable import stability_data


def varied(counts: dict[str, int]) -> AttributionGraph:
    """The small graph, whose nodes stay in so many of four paraphrases."""
    graph = small()
    settings = StabilitySettings(node_thresholds=(), edge_thresholds=())
    found = stability(graph, 4 * [graph], settings=settings)
    (one,) = found.variations
    nodes = tuple(
        count if count is None else counts.get(name, count)
        for name, count in zip(found.nodes, one.nodes, strict=True)
    )
    ends = zip(found.sources, found.targets, strict=True)
    edges = tuple(min(counts.get(found.nodes[end], 4) for end in both) for both in ends)
    changed = one.model_copy(update={"nodes": nodes, "edges": edges})
    kept = Stability.model_validate({**found.model_dump(), "variations": (changed,)})
    return graph.with_stability(kept)


def test_classes_are_by_node_and_edge_of_the_page():
    held = part(varied({EARLY: 2, OTHER: 0}))
    data = stability_data(held)
    assert data is not None
    names = [str(node) for node in held.graph.nodes.take(held.rows)]
    nodes = dict(zip(names, data["nodes"], strict=True))
    assert [nodes[name] for name in (LATE, EARLY, OTHER)] == [1, 2, 3]
    assert nodes[TOKEN] == nodes[LOGIT] == 0
    ends = [(names[s], names[t]) for s, t in zip(held.source, held.target, strict=True)]
    edges = dict(zip(ends, data["edges"], strict=True))
    assert edges[(LATE, LOGIT)] == 1
    assert edges[(EARLY, LATE)] == 2
    assert data["varied"] == ["4 paraphrases"]
    assert data["stays"][EARLY] == [2]
    assert stability_data(part(small())) is None


@needs_chromium
def test_what_does_not_stay_is_lighter_and_said_so(browser: Browser, tmp_path: Path):
    write_page(varied({EARLY: 2, OTHER: 0}), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        legend = page.locator(".stability")
        expect(legend).to_contain_text("contingent")
        expect(legend.locator("span")).to_have_count(3)
        fills = page.evaluate(
            "(names) => names.map((one) => coloursOf(viewer.scene(0), "
            "viewer.graph.place.get(one)).fill)",
            [LATE, EARLY, OTHER],
        )
        light = [sum(int(fill[at : at + 2], 16) for at in (1, 3, 5)) for fill in fills]
        assert light == sorted(light)
        assert len(set(light)) == 3
        click(page, EARLY)
        expect(page.locator(".detail dl")).to_contain_text("2 of 4 paraphrases: contingent")
        click(page, LATE)
        expect(page.locator(".detail dl")).to_contain_text("4 of 4 paraphrases: core")


@needs_chromium
def test_a_page_of_a_graph_without_it_is_as_before(browser: Browser, tmp_path: Path):
    write_page(small(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator(".stability")).to_have_count(0)
        own = found.page.evaluate(
            "coloursOf(viewer.scene(0), viewer.graph.place.get('feature:1/7@2')).fill"
        )
        assert own == found.page.evaluate("viewer.palette.feature")
