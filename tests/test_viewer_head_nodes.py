"""Head nodes in the page: pruned as in Python, and what makes them look where they look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, expect
from scipy.sparse import csr_array

import graphs
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from tests.browser import needs_chromium, viewed
from tests.graph_oracles import make_graph
from tests.test_viewer import settle
from tests.test_viewer_numbers import payload, sent
from viz.page.page import write_page
from viz.text.words import percent

pytestmark = needs_chromium


def head_nodes() -> AttributionGraph:
    """Heads as nodes, and what makes them look where they look, part of it outside any page."""
    names = ["token:1@0", "token:2@1", "token:3@2", "head:0/1@1", "head:0/2@2", "feature:0/5@1"]
    names += ["feature:0/6@2", "head:1/0@2", "head:1/3@2", "feature:1/7@2", "logit:7@2"]
    rng = np.random.default_rng(3)
    edges = {
        (source, target): rng.uniform(-1, 1)
        for number, target in enumerate(names)
        for source in names[:number]
        if not target.startswith("token") and rng.random() < 0.6
    }
    edges = {ends: w for ends, w in edges.items() if ends[1] != "head:0/2@2"}  # nothing feeds it
    graph = make_graph(names, edges, [0.6], tokens=("<bos>", " Dallas", " is"))
    expanded = graph.expanded | graph.nodes.is_kind(NodeKind.HEAD)
    scores = np.zeros((len(names), len(names)))
    for head, count in ((7, 7), (8, 5), (3, 2)):
        scores[head, :count] = rng.standard_normal(count)
    return replace(graph, expanded=expanded, score_weights=csr_array(scores))


def test_head_nodes_are_pruned_as_in_python(browser: Browser, tmp_path: Path):
    graph = head_nodes()
    write_page(graph, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        for nodes, edges in ((1.0, 1.0), (0.8, 0.9), (0.5, 0.5)):
            names = found.page.evaluate(
                """([data, nodes, edges]) => {
                    const graph = readGraph(readData(bytesOf(data)));
                    const kept = pruned(graph, {nodes, edges, keepErrors: false});
                    return graph.names.filter((_, n) => kept.node[n]);
                }""",
                [sent(payload(graph)), nodes, edges],
            )
            expected = graphs.prune(graph, graphs.PruneSettings(nodes, edges))
            assert names == [str(node) for node in expected.nodes]


def test_what_makes_a_head_node_look_is_listed_and_drawn_dashed(browser: Browser, tmp_path: Path):
    graph = head_nodes()
    assert graph.score_weights is not None
    write_page(graph, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        page.keyboard.press("a")
        heads = page.locator('section[aria-label="head nodes"] button.link')
        expect(heads).to_have_count(4)
        page.locator('[data-key="head:1/0@2"]').click()
        settle(page)
        row = graph.score_weights.toarray()[7]
        order = [at for at in np.argsort(-abs(row)) if row[at] and at != 4]  # pruned: starved
        listing = page.locator('section[aria-label="Looks there because of (dashed)"] button.link')
        names = [one.get_attribute("data-node") for one in listing.all()]
        assert names == [str(graph.nodes[int(at)]) for at in order]
        shares = [
            f"{'−' if row[at] < 0 else '+'}{percent(abs(row[at]) / abs(row).sum())}" for at in order
        ]
        assert listing.locator(".share").all_inner_texts() == shares
        dashed = page.evaluate(
            "(new DOMParser().parseFromString(paint(viewer, 'graph', svgPen).file(), 'text/xml'))"
            ".querySelectorAll('path[stroke-dasharray]').length"
        )
        assert dashed == len(order) + 1  # and that of the legend
        expect(page.locator("#panel")).to_contain_text("not kept in this graph of head nodes")
        page.locator('section[aria-label^="Looks there"] [data-node="feature:0/6@2"]').click()
        settle(page)
        makes = page.locator('section[aria-label="Makes heads look (dashed)"] button.link')
        assert [one.get_attribute("data-node") for one in makes.all()] == ["head:1/0@2"]
