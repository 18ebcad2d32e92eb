"""Attention in the page: heads of edges, where a head looks, and edges by the heads they cross."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

import viz.page.attention
from graphs.analysis.head_shares import head_shares
from graphs.core.annotations import NO_ANNOTATIONS
from graphs.core.graph import AttributionGraph
from tests.attended_graphs import look, with_heads
from tests.browser import Opened, needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, TOKEN, click, clicked, settle, small
from tests.test_viewer_numbers import layered, sent
from viz.html.columns import as_bytes
from viz.page.attention import attention_data
from viz.page.page import write_page, write_pages
from viz.page.part import part
from viz.page.payload import graph_data, placed
from viz.text.words import percent

pytestmark = needs_chromium

FLOAT32 = {"rel": 1e-5, "abs": 1e-6}
LOOKS = (
    look(1, 2, (0.1, 0.85, 0.05), 1, (EARLY, "feature:0/99@1")),
    look(1, 2, (0.25, 0.75), 0, (TOKEN, TOKEN), carries=0.06),
)


def attended() -> AttributionGraph:
    return with_heads(small(), LOOKS, seed=2)


def parts_of(graph: AttributionGraph, source: str, target: str) -> tuple[dict[str, float], float]:
    """Parts of an edge over the sum of their sizes, by head, and what goes past all attention."""
    assert graph.attended is not None
    edges = graph.attended.edges
    rows = graph.find(target), graph.find(source)
    (place,) = np.flatnonzero((edges.target == rows[0]) & (edges.source == rows[1])).tolist()
    size = np.abs(edges.part[place]).sum() + abs(edges.bypass[place]) + abs(edges.rest[place])
    size *= np.sign(graph.weights[rows])
    return {f"{la}.{h}": p / size for la, h, p in edges.heads(place)}, edges.bypass[place] / size


@pytest.fixture(scope="module")
def attended_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attended") / "page.html"
    write_page(attended(), path)
    return path


@pytest.fixture
def opened_page(browser: Browser, attended_file: Path) -> Iterator[Opened]:
    with viewed(browser, attended_file) as found:
        found.page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        settle(found.page)
        yield found


def payload(graph: AttributionGraph) -> dict[str, Any]:
    held = part(graph)
    return graph_data(held, placed(held))


@pytest.mark.parametrize("seed", range(3))
def test_heads_of_edges_and_of_nodes_are_those_of_the_graph(opened_page: Opened, seed: int):
    graph = with_heads(layered(seed), LOOKS, seed)
    assert graph.attended is not None
    assert graph.heads is not None
    found = opened_page.page.evaluate(
        """(data) => {
            const graph = readGraph(readData(bytesOf(data)));
            const {attention} = graph;
            const {past, rest, parts} = attention.edges;
            const all = [...graph.share.keys()];
            return {
                edges: all.map((e) => [edgeName(graph, e), overHeads(graph, e)]),
                sums: all.map((e) => past[e] + rest[e]
                    + parts.slice(3 * e, 3 * e + 3).reduce((a, b) => a + b)),
                shares: [...graph.share],
                nodes: graph.names.map((name, row) => [name, writtenInto(graph, row)]),
                carried: [...attention.carried.heads], past: attention.carried.past,
            };
        }""",
        sent(payload(graph)),
    )
    assert found["sums"] == pytest.approx(found["shares"], **FLOAT32)
    assert len(found["edges"]) == len(part(graph).edges) > 100
    for name, over in found["edges"]:
        heads, past = parts_of(graph, *name.split(">"))
        assert {one["head"]: one["share"] for one in over["heads"]} == pytest.approx(
            heads, abs=1e-6
        )
        assert over["past"] == pytest.approx(past, **FLOAT32)
    for name, written in found["nodes"]:
        parts = graph.heads.of(graph.find(name))
        assert (written is None) == (parts is None)
        if parts is None:
            continue
        assert [one["part"] for one in written["heads"]] == pytest.approx(
            sorted(parts.ravel(), key=abs, reverse=True)[:5], **FLOAT32
        )
        for one in written["heads"]:
            layer, head = map(int, one["head"].split("."))
            assert one["part"] == pytest.approx(parts[layer, head], **FLOAT32)
        total = sum(one["part"] for one in written["heads"]) + written["others"]
        assert total == pytest.approx(parts.sum(), **FLOAT32)
    shares = head_shares(graph, graph.attended.edges)
    assert found["carried"][: shares.heads.size] == pytest.approx(shares.heads.ravel())
    assert found["past"] == pytest.approx(shares.past)


@pytest.mark.parametrize("chosen", [("0.1",), ("1.2", "0.0", "1.3"), ("7.7",)])
def test_edges_over_chosen_heads_are_those_with_their_share(
    opened_page: Opened, chosen: tuple[str, ...]
):
    graph = with_heads(layered(5), LOOKS, 5)
    for least in (0.1, 0.4):
        found = opened_page.page.evaluate(
            """([data, heads, least]) => {
                const graph = readGraph(readData(bytesOf(data)));
                const over = edgesOver(graph, heads, least);
                return [...over.keys()].filter((e) => over[e]).map((e) => edgeName(graph, e));
            }""",
            [sent(payload(graph)), list(chosen), least],
        )
        nodes, (rows, sources) = graph.nodes, graph.weights.nonzero()
        expected = set()
        for row, source in zip(rows.tolist(), sources.tolist(), strict=True):
            ends = str(nodes[source]), str(nodes[row])
            heads, _ = parts_of(graph, *ends)
            over = sum(abs(heads.get(head, 0.0)) for head in chosen)
            if over > 0 and over >= least:
                expected.add(">".join(ends))
        assert set(found) == expected
        assert bool(expected) == ("7.7" not in chosen)


def test_what_is_said_of_attention_is_of_a_stated_size(monkeypatch: pytest.MonkeyPatch):
    graph = with_heads(layered(1), 8 * LOOKS, 1)
    held = part(graph)
    data = attention_data(held)
    assert data is not None
    assert len(as_bytes(data["edges"])) <= 51 * len(held.edges) + 200
    assert len(as_bytes(data["nodes"])) <= 51 * len(held.rows) + 200
    assert len(as_bytes(data["looks"])) < 16 * 1_030
    assert payload(graph)["remarks"] == payload(layered(1))["remarks"]
    monkeypatch.setattr(viz.page.attention, "EDGES", 7)
    monkeypatch.setattr(viz.page.attention, "LOOKS", len(as_bytes(data["looks"][:3])))
    short = payload(graph)
    assert len(short["attention"]["looks"]) == 3
    assert short["remarks"][-2:] == [
        "This page contains the heads of its 7 strongest edges.",
        "It contains 3 of 16 looks of heads, those that carry most.",
    ]


def whole(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")


def test_an_edge_lists_its_heads_and_each_leads_to_where_it_looks(opened_page: Opened):
    page, graph = opened_page.page, attended()
    click(page, LOGIT)
    heads, past = parts_of(graph, EARLY, LOGIT)
    opener = page.locator(f'[data-key="over Fed by {EARLY}>{LOGIT}"]')
    expect(opener).to_have_attribute("aria-expanded", "false")
    opener.click()
    settle(page)
    detail = page.locator("p.carries:not(.written)")
    shown = [f"{whole(share)} head {head}" for head, share in heads.items()]
    assert detail.locator("button").all_inner_texts() == shown
    expect(detail).to_contain_text(f"{whole(past)} past attention")
    first = next(iter(heads))
    detail.locator("button").first.click()
    settle(page)
    assert page.evaluate("viewer.view.head") == f"head:{first.replace('.', '/')}@2"
    expect(page.locator('[role=tab][aria-selected="true"]')).to_have_text("Heads")
    expect(page.locator("section.detail h2")).to_have_text(f"Head {first} from “is” @2")


def test_a_node_names_the_heads_that_write_into_it(opened_page: Opened):
    page, graph = opened_page.page, attended()
    assert graph.heads is not None
    click(page, LATE)
    settle(page)
    strongest = graph.heads.strongest(graph.find(LATE), 5)
    buttons = page.locator("p.written button")
    assert [text.split()[0] for text in buttons.all_inner_texts()] == [
        f"{layer}.{head}" for layer, head, _ in strongest
    ]
    buttons.nth(1).click()
    layer, head, _ = strongest[1]
    assert page.evaluate("viewer.view.head") == f"head:{layer}/{head}@2"
    click(page, TOKEN)
    expect(page.locator("p.written")).to_have_count(0)


def test_a_head_shows_where_it_looks_and_why_with_links_into_the_graph(opened_page: Opened):
    page = opened_page.page
    page.locator('[data-key="tab heads"]').click()
    page.locator('[data-key="look head:1/2@2"]').click()
    chips = page.locator(".pattern .heat")
    expect(chips).to_have_count(3)
    assert [" ".join(text.split()) for text in chips.all_inner_texts()] == [
        "<bos> 10%",
        "Dallas 85%",
        "is 5%",
    ]
    expect(chips.nth(1)).to_have_attribute("title", "85.0% at position 1")
    heats = chips.evaluate_all("list => list.map((one) => getComputedStyle(one).backgroundColor)")
    assert [float(re.findall(r"[\d.]+", one)[3]) for one in heats] == [0.1, 0.85, 0.05]
    chips.nth(1).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == (
        "is at 2: 5.0% of the attention"
    )
    text = page.locator(".look > p").inner_text()
    assert "from “Dallas” @1: 85.0% of its attention, score +2, +1.75 above" in text
    assert "log odds −0.5" in text
    query, keys = (
        page.locator(f'section[aria-label="{s}"]') for s in ("At the query", "At the keys")
    )
    assert [query.locator(f"li .{one}").all_inner_texts() for one in ("share", "weight")] == [
        ["+1.5", "+0.25"],
        ["+0.75", "0"],
    ]
    expect(keys.locator("li").first).to_contain_text("elsewhere")
    expect(keys.locator("li").first).to_contain_text("not in graph")
    expect(keys.locator("button")).to_have_count(0)
    expect(page.locator("li.pair")).to_contain_text("+0.75")
    expect(page.locator("li.pair")).to_contain_text("context")
    query.locator("button").first.click()
    assert clicked(page) == EARLY
    page.locator('[data-key="tab heads"]').click()
    page.locator('[data-key="from 1"]').click()
    expect(page.locator("section.detail h2")).to_have_text("Head 1.2 from “Dallas” @1")


def test_a_look_that_is_not_kept_is_said_so_with_the_command_that_keeps_more(opened_page: Opened):
    page = opened_page.page
    page.evaluate("viewer.dispatch({type: 'set', view: {tab: 'heads', head: 'head:0/3@1'}})")
    expect(page.locator("#panel")).to_contain_text("head 0.3 from “Dallas” @1 is not kept")
    expect(page.locator("#panel code")).to_have_text(
        "headwater attention heads GRAPH --looks 96 --out FILE --html PAGE"
    )


def test_heads_are_listed_by_what_they_carry_one_key_away(opened_page: Opened):
    page, graph = opened_page.page, attended()
    assert graph.attended is not None
    page.locator(".plot").focus()
    page.keyboard.press("a")
    shares = head_shares(graph, graph.attended.edges)
    order = sorted(np.ndindex(shares.heads.shape), key=lambda place: -shares.heads[place])
    rows = page.locator('section[aria-label="heads that carry most"] button.link')
    expect(rows.first).to_contain_text(f"head {order[0][0]}.{order[0][1]}")
    assert rows.locator(".share").all_inner_texts() == [
        percent(float(shares.heads[place])) for place in order if shares.heads[place] > 0
    ]
    expect(page.locator("#panel")).to_contain_text(f"past all attention {percent(shares.past)}")
    looks = page.locator('section[aria-label="looks that write most"] button.link .share')
    assert looks.all_inner_texts() == ["12.5%", percent(0.06)]


def lit(page: Page) -> list[str]:
    return page.evaluate(
        "viewer.scene(0).edges.map((e) => viewer.graph.names[e.source] + '>' + "
        "viewer.graph.names[e.target])"
    )


def test_edges_over_chosen_heads_stay_lit_and_are_counted(opened_page: Opened):
    page, graph = opened_page.page, attended()
    page.locator('[data-key="crossing"]').fill("1.2, 0.3")
    expected = {
        f"{s}>{t}"
        for s, t in [
            e.split(">")
            for e in page.evaluate(
                "[...viewer.graph.share.keys()].map((e) => edgeName(viewer.graph, e))"
            )
        ]
        if sum(abs(parts_of(graph, s, t)[0].get(head, 0.0)) for head in ("1.2", "0.3")) >= 0.1
    }
    settle(page)
    assert set(lit(page)) == expected
    total = graph.weights.nnz
    assert 0 < len(expected) < total
    status = page.locator(".crossing output")
    expect(status).to_have_text(f"{len(expected)} of {total} edges cross them first")
    ends = {end for edge in expected for end in edge.split(">")}
    assert set(page.evaluate("[...viewer.scene(0).ends].map((n) => viewer.graph.names[n])")) == ends
    assert page.evaluate("document.querySelector('canvas.faint').style.opacity") == "0.12"
    page.locator('[data-key="crossing share"]').fill("100")
    expect(status).to_have_text(f"0 of {total} edges cross them first")
    page.locator('[data-key="crossing"]').fill("9.9")
    expect(status).to_have_text(f"0 of {total} edges cross it first; no edge crosses 9.9 first")
    page.locator('[data-key="reset"]').click()
    settle(page)
    expect(status).to_have_text("")
    assert page.evaluate("viewer.scene(0).lit") is None


def test_edges_whose_heads_are_not_in_the_page_are_counted_apart(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(viz.page.attention, "EDGES", 4)
    write_page(attended(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.evaluate(
            "viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1, heads: ['1.2']}})"
        )
        weak = attended().weights.nnz - 4
        text = f"; heads of {weak} weak edges are not in this page"
        expect(found.page.locator(".crossing output")).to_contain_text(text)


def test_while_a_node_is_clicked_its_other_edges_are_dimmed_in_lists_and_drawings(
    opened_page: Opened,
):
    page, graph = opened_page.page, attended()
    sources = [LATE, EARLY, OTHER]
    by_head = {
        head: {s for s in sources if parts_of(graph, s, LOGIT)[0].get(head)}
        for head in (f"{la}.{h}" for la in (0, 1) for h in range(4))
    }
    head, over = next((h, s) for h, s in by_head.items() if 0 < len(s) < 3)
    page.evaluate(f"viewer.dispatch({{type: 'set', view: {{heads: ['{head}'], crossing: 0}}}})")
    click(page, LOGIT)
    dimmed = page.locator('section[aria-label="Fed by"] li.dimmed button.link')
    names = {one.get_attribute("data-node") for one in dimmed.all()}
    assert names == set(sources) - over
    strokes = page.evaluate(
        """() => {
            const scene = viewer.scene(0);
            const green = ({color}) => parseInt(color.slice(3, 5), 16);
            const found = highlightedStrokes(scene).reverse().map((one) => 1 - green(one) / 255);
            return scene.edges.map((e, i) => [viewer.graph.names[e.source], found[i]]);
        }"""
    )
    for source, strength in strokes:  # green is about half of either sign's colour
        assert (strength > 0.15) == (source in over)


def test_the_filter_is_in_the_address_and_in_pictures(opened_page: Opened, attended_file: Path):
    page = opened_page.page
    before = page.evaluate("paint(viewer, 'graph', svgPen).file()")
    page.locator('[data-key="tab heads"]').click()
    page.locator('[data-key="only 1.2"]').click()
    page.evaluate("viewer.dispatch({type: 'set', view: {crossing: 0.3, head: 'head:1/2@2'}})")
    settle(page)
    assert page.evaluate("paint(viewer, 'graph', svgPen).file()") != before
    hash_of = page.evaluate("sharedHash(viewer.graphs, viewer.state)")
    view = page.evaluate(
        "(hash) => withShared(initialState(viewer.graphs), sharedState(hash)).view", hash_of
    )
    assert (view["heads"], view["crossing"], view["head"]) == (["1.2"], 0.3, "head:1/2@2")
    bad = {"view": {"heads": ["<b>"], "crossing": 7, "head": 3, "tab": "toString"}}
    view = page.evaluate("(bad) => withShared(initialState(viewer.graphs), bad).view", bad)
    assert (view["heads"], view["crossing"], view["head"], view["tab"]) == ([], 0.1, None, "node")


def test_two_graphs_are_filtered_by_the_same_heads(browser: Browser, tmp_path: Path):
    pages = [(attended(), NO_ANNOTATIONS), (with_heads(small(), (), seed=6), NO_ANNOTATIONS)]
    write_pages([*pages, (small(), NO_ANNOTATIONS)], tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        page.evaluate("viewer.dispatch({type: 'show', shown: [0, 1]})")
        page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1, heads: ['1.2']}})")
        settle(page)
        one, other = page.evaluate("[0, 1].map((n) => viewer.scene(n).edges.length)")
        counts = [int(viewed_over(graph, "1.2")) for graph, _ in pages]
        assert [one, other] == counts
        assert counts[0] != counts[1]
        page.evaluate("viewer.dispatch({type: 'show', shown: [2, 1]})")
        settle(page)
        expect(page.locator(".crossing output")).to_have_text("no heads of edges in this graph")
        expect(page.locator('[data-key="tab heads"]')).to_have_count(0)


def viewed_over(graph: AttributionGraph, head: str) -> int:
    """Edges that cross a head first with a tenth of their parts."""
    rows, sources = (ends.tolist() for ends in graph.weights.nonzero())
    names = [str(node) for node in graph.nodes]
    ends = zip(sources, rows, strict=True)
    return sum(abs(parts_of(graph, names[s], names[t])[0].get(head, 0.0)) >= 0.1 for s, t in ends)


def test_a_page_of_a_graph_that_knows_nothing_of_heads_is_as_before(
    browser: Browser, tmp_path: Path
):
    write_page(small(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        page = found.page
        expect(page.locator('[data-key="tab heads"]')).to_have_count(0)
        expect(page.locator(".crossing")).to_have_count(0)
        click(page, LATE)
        expect(page.locator("button.over, p.written")).to_have_count(0)
        page.locator("#tab-list").click()
        settle(page)
        page.keyboard.press("ArrowRight")
        settle(page)
        assert page.evaluate("viewer.view.tab") == "paths"


def test_labels_of_looks_cannot_become_markup(browser: Browser, tmp_path: Path):
    hostile = "</script><img src=x onerror=bad()>"
    parts = [one.model_copy(update={"label": hostile}) for one in LOOKS[0].at_keys[:1]]
    looks = (LOOKS[0].model_copy(update={"at_keys": tuple(parts)}),)
    write_page(with_heads(small(), looks), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.evaluate(
            "viewer.dispatch({type: 'set', view: {tab: 'heads', head: 'head:1/2@2'}})"
        )
        expect(found.page.locator('section[aria-label="At the keys"]')).to_contain_text(hostile)
        assert json.dumps(hostile) not in found.page.content()
