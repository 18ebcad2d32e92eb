"""Pages in a real browser: they draw, load nothing, complain of nothing, and answer the mouse."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from graphs.comparison.compare import Score
from graphs.comparison.concepts import Appearance, Concept
from graphs.comparison.many_prompts import compare_prompt_sets
from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, opened, viewed
from tests.graph_oracles import make_graph
from tests.test_prompts import ONES, short
from viz.page.comparison_page import write_comparison
from viz.page.page import write_page
from viz.page.prompts_page import write_prompts

pytestmark = needs_chromium

HOSTILE = (
    "</script><script>bad()</script>",
    "שלום",
    "\x00\ud7ff\ufffe",
    "<img src=x onerror=bad()>",
)


def many(features: int) -> AttributionGraph:
    """A fan of features between a token and a prediction."""
    names = [f"feature:{row % 20}/{row}@1" for row in range(features)]
    names.sort(key=lambda name: int(name.split(":")[1].split("/")[0]))
    edges = {("token:1@0", name): 1.0 for name in names}
    edges |= {(name, "logit:1@2"): 1.0 + row % 7 for row, name in enumerate(names)}
    return make_graph(["token:1@0", *names, "logit:1@2"], edges, [0.5])


HOSTILE_GRAPH = make_graph(
    ["token:1@0", "token:2@1", "token:3@2", "token:4@3", "feature:0/1@3", "logit:1@3"],
    {("token:1@0", "feature:0/1@3"): 1.0, ("feature:0/1@3", "logit:1@3"): -2.0},
    [0.5],
    tokens=HOSTILE,
    output_tokens={4: HOSTILE},
)


@pytest.mark.parametrize(
    "graph",
    [
        make_graph([], {}, probabilities=[]),
        make_graph(["logit:1@0"], {}),
        HOSTILE_GRAPH,
        many(5000),
    ],
    ids=["no node", "one node", "hostile tokens", "5,000 nodes"],
)
def test_a_page_draws_and_does_nothing_else(browser: Browser, tmp_path: Path, graph):
    write_page(graph, tmp_path / "page.html", most_nodes=6000)
    with viewed(browser, tmp_path / "page.html") as found:
        assert found.page.evaluate("typeof bad") == "undefined"
        assert found.page.locator(".plot .main-svg").first.is_visible()
        assert found.page.evaluate("viewer.graph.count") == len(graph)


def test_the_harness_sees_errors_warnings_and_requests(browser: Browser, tmp_path: Path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<script>console.warn('w'); fetch('http://127.0.0.1:9/x').catch(() => {}); "
        "setTimeout(() => { throw new Error('thrown') })</script>"
    )
    with opened(browser, path) as found:
        for _ in range(100):  # a busy machine takes its time
            if len(found.complaints) > 1 and found.asked:
                break
            found.page.wait_for_timeout(50)
    assert any("thrown" in text for text in found.complaints)
    assert "w" in found.complaints
    assert found.asked == ["http://127.0.0.1:9/x"]


def test_a_window_knows_nothing_of_the_one_before(browser: Browser, tmp_path: Path):
    path = tmp_path / "page.html"
    write_page(HOSTILE_GRAPH, path)
    for _ in range(2):
        with viewed(browser, path) as found:
            assert found.page.evaluate("[viewer.notes.pins.length, localStorage.length]") == [0, 0]
            found.page.evaluate("viewer.dispatch({type: 'pin', node: viewer.graph.names[0]})")


def concept(name: str) -> Appearance:
    return Appearance(name=name, features=2, influence=0.25, depth=0.5)


@pytest.mark.parametrize(
    "concepts",
    [
        [],
        [Concept(first=concept("a"), second=None, shared=0.0)],
        [Concept(first=concept("a"), second=concept("b"), shared=0.1)],
    ],
    ids=["none", "alone", "shared"],
)
def test_a_comparison_draws_its_three_figures(
    browser: Browser, tmp_path: Path, concepts: list[Concept]
):
    scores = {"features in common": Score(0.5, (0.1, 0.2))}
    write_comparison(ONES[0], short(), scores, concepts, tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as found:
        for name in ("scores", "depth", "concepts"):
            assert found.page.locator(f"#{name} .main-svg").first.is_visible()
    assert found.complaints == []
    assert found.asked == []


def test_a_comparison_of_prompts_draws_its_two_figures(browser: Browser, tmp_path: Path):
    found = compare_prompt_sets(ONES, ONES, shuffles=2)
    write_prompts(ONES, ONES, found, tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as seen:
        for name in ("scores", "depth"):
            assert seen.page.locator(f"#{name} .main-svg").first.is_visible()
    assert seen.complaints == []
    assert seen.asked == []
