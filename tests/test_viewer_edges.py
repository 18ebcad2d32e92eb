"""Edges of the page: how many are drawn and what is stated of it, and colours that never mix."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.analysis.prune import prune
from graphs.analysis.strengths import strengths
from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, viewed
from tests.graph_oracles import make_graph
from tests.test_viewer import settle, until
from viz.page.page import write_page
from viz.text.words import percent

pytestmark = needs_chromium

ALL = "viewer.dispatch({type: 'set', view: {drawn: 1, nodes: 1, edges: 1}})"
FEW, MANY = 1500, 18_000  # edges


def crowded(edges: int, features: int = 30) -> AttributionGraph:
    """A random graph of all kinds, with so many edges, of both signs and some within a row."""
    rng = random.Random(edges)
    tokens = tuple(f" w{pos}" for pos in range(10))
    names = [f"token:{pos}@{pos}" for pos in range(10)]
    for layer in range(10):
        names += [f"bias:{layer}", f"error:{layer}@{rng.randrange(10)}"]
        names += [f"feature:{layer}/{i}@{rng.randrange(10)}" for i in range(features)]
    inner = [*names]
    names += ["logit:7@9", "logit:8@9"]
    layer_of = {name: int(name.split(":")[1].split("/")[0].split("@")[0]) for name in inner}
    fed = [name for name in inner if name.startswith("feature")] + names[-2:]
    pairs = [
        (source, target)
        for target in fed
        for source in inner
        if source.startswith("token")
        or layer_of[source] < layer_of.get(target, 99)
        or (source.startswith("bias") and layer_of[source] == layer_of.get(target))
    ]
    needed = [("token:0@0", name) for name in fed] + [(name, "logit:7@9") for name in fed[:-2]]
    others = sorted({*pairs} - {*needed})
    chosen = needed + rng.sample(others, edges - len(needed))
    weights = {pair: rng.choice((-1, 1)) * rng.paretovariate(1.5) for pair in chosen}
    return make_graph(names, weights, [0.6, 0.3], tokens=tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("edges")
    write_page(crowded(FEW, 16), path / f"{FEW}.html")
    write_page(crowded(MANY), path / f"{MANY}.html")
    return path


@pytest.fixture
def page(browser: Browser, folder: Path) -> Iterator[Page]:
    with viewed(browser, folder / f"{FEW}.html") as found:
        yield found.page


STATED = "#legend .budget [role=status]"


def names_of(page: Page, edges: str) -> list[tuple[str, str]]:
    found = page.evaluate(
        f"Array.from({edges}, (e) => [viewer.graph.source[e], viewer.graph.target[e]]"
        ".map((n) => viewer.graph.names[n]))"
    )
    return [(source, target) for source, target in found]


def by_influence(graph: AttributionGraph, among: AttributionGraph) -> dict[tuple[str, str], float]:
    """Influence along each edge of a part of a graph, by names, the largest first."""
    measured = strengths(graph)
    nodes = [str(node) for node in graph.nodes]
    ends = among.weights.tocoo()
    own = [str(node) for node in among.nodes]
    kept = {(own[s], own[t]) for t, s in zip(*ends.coords, strict=True)}
    found = {
        (nodes[s], nodes[t]): float(carried)
        for s, t, carried in zip(measured.source, measured.target, measured.carried, strict=True)
    }
    return dict(sorted(((e, found[e]) for e in kept), key=lambda item: -item[1]))


@pytest.mark.parametrize("count", [FEW, MANY])
def test_at_first_the_strongest_edges_are_drawn_and_what_they_hold_is_stated(
    browser: Browser, folder: Path, count: int
):
    graph = crowded(count, 16 if count == FEW else 30)
    with viewed(browser, folder / f"{count}.html") as found:
        pruned = prune(graph)
        influence = by_influence(graph, pruned)
        held = np.cumsum(list(influence.values())) / sum(influence.values())
        most = min(300, int(np.searchsorted(held, 0.8 - 1e-9)) + 1)
        assert names_of(found.page, "viewer.faint(0)") == [*influence][:most]
        expect(found.page.locator(STATED)).to_have_text(
            f"the strongest {most} of {len(influence):,} edges hold {percent(held[most - 1])} "
            "of the influence along them"
        )


def test_more_edges_are_drawn_by_slider_and_keys_and_pruning_keeps_the_same(page: Page):
    scores = page.locator(".sliders .left").inner_text()
    counts = [page.evaluate("viewer.faint(0).length")]
    page.locator(".plot").focus()
    for _ in range(2):
        page.keyboard.press(".")
        settle(page)
        counts.append(page.evaluate("viewer.faint(0).length"))
    assert counts == sorted(set(counts))
    page.keyboard.press(",")
    settle(page)
    assert page.evaluate("viewer.faint(0).length") < counts[-1]
    page.locator('[data-key="slider drawn"]').fill("1")
    settle(page)
    assert page.evaluate("viewer.faint(0).length === viewer.pruning(0).kept.nEdges")
    expect(page.locator(STATED)).to_have_text(
        f"all {len(prune(crowded(FEW, 16)).weights.data):,} edges"
    )
    assert page.locator(".sliders .left").inner_text() == scores
    page.keyboard.press("e")
    expect(page.locator(STATED)).to_have_text("only edges of the clicked node")
    assert page.evaluate("viewer.faint(0).length") == 0


def test_the_budget_is_kept_shared_and_reset(page: Page):
    page.locator('[data-key="slider drawn"]').fill("0.3")
    settle(page)
    hash_of = page.evaluate("sharedHash(viewer.graphs, viewer.state)")
    for state in (f"sharedState('{hash_of}')", "JSON.parse(kept(viewer.state))"):
        assert page.evaluate(f"joined(initialState(viewer.graphs), {state}).view.drawn") == 0.3
    bad = "withShared(initialState(viewer.graphs), {view: {drawn: 7}}).view.drawn"
    assert page.evaluate(bad) is None
    page.locator('[data-key="reset"]').click()
    settle(page)
    assert page.evaluate("viewer.view.drawn") is None


_SHOWN = """() => {
    const {root} = viewer.plots[0];
    const canvases = [...root.querySelectorAll(":scope > canvas")];
    const all = document.createElement("canvas");
    [all.width, all.height] = [canvases[0].width, canvases[0].height];
    const context = all.getContext("2d");
    context.fillStyle = viewer.palette.paper;
    context.fillRect(0, 0, all.width, all.height);
    for (const one of canvases) {
        context.globalAlpha = Number(one.style.opacity || 1);
        context.drawImage(one, 0, 0);
    }
    return pixelsOf(context);
}"""
_SAVED = """async () => {
    const image = new Image();
    const text = paint(viewer, "graph", svgPen).file();
    image.src = URL.createObjectURL(new Blob([text], {type: "image/svg+xml"}));
    await image.decode();
    const all = document.createElement("canvas");
    [all.width, all.height] = [image.width, image.height];
    const context = all.getContext("2d");
    context.drawImage(image, 0, 0);
    return pixelsOf(context);
}"""
_PAINTED = """() => {
    const all = document.createElement("canvas");
    const context = all.getContext("2d");
    paint(viewer, "graph", (width, height) => {
        [all.width, all.height] = [width, height];
        return canvasPen(context);
    });
    return pixelsOf(context);
}"""
_PIXELS = """void (window.pixelsOf = (context) => {
    const {data} = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
    let text = "";
    for (let i = 0; i < data.length; i += 30_000) {
        text += String.fromCharCode(...data.subarray(i, i + 30_000));
    }
    return btoa(text);
})"""


def pixels(page: Page, read: str) -> np.ndarray:
    """Red, green and blue of each pixel, [pixel, 3]."""
    page.evaluate(_PIXELS)
    return np.frombuffer(base64.b64decode(page.evaluate(read)), np.uint8).reshape(-1, 4)[:, :3]


def colour(text: str) -> np.ndarray:
    return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)], dtype=float)


def far_from_legend(found: np.ndarray, palette: dict[str, Any]) -> tuple[int, np.ndarray]:
    """How many pixels are strongly coloured, and those of them that are no legend's colour.

    A colour of the legend may be paler: weaker edges are, and borders of lines.
    """
    seen = np.unique(found, axis=0).astype(float)
    paper = colour(palette["paper"])
    chroma = np.ptp(seen - paper, axis=1)
    strong = seen[chroma >= 40]
    away = np.full(len(strong), np.inf)
    for name in ("positive", "negative", "token", "bias", "feature", "error", "target", "ink"):
        for ground in (paper, colour(palette["pale"])):
            along = colour(palette[name]) - ground
            part = np.clip((strong - ground) @ along / (along @ along), 0, 1)
            away = np.minimum(away, np.linalg.norm(strong - ground - part[:, None] * along, axis=1))
    return len(strong), strong[away > 12]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("count", [FEW, MANY])
def test_colours_of_edges_are_those_of_the_legend(
    browser: Browser, folder: Path, count: int, theme: str
):
    with viewed(browser, folder / f"{count}.html") as found:
        page = found.page
        page.evaluate(f"viewer.dispatch({{type: 'set', view: {{theme: '{theme}'}}}})")
        page.evaluate(ALL)
        settle(page)
        until(page, "viewer.plots[0].root.dataset.settled")
        assert page.evaluate("viewer.faint(0).length") == count
        drawings = [(_SHOWN, "viewer.palette"), (_SAVED, "lightPalette()")]
        for read, palette in [*drawings, (_PAINTED, "lightPalette()")]:
            many, far = far_from_legend(pixels(page, read), page.evaluate(palette))
            assert many > 50
            assert far.tolist() == []
