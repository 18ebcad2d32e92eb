"""Lists are ordered by the number that they show, and a search dims all that it does not find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.analysis.strengths import strengths
from tests.browser import needs_chromium, viewed
from tests.test_viewer import EARLY, OTHER, click, place, settle, small
from tests.test_viewer_numbers import layered
from viz.page.page import write_page

pytestmark = needs_chromium

GRAPH = layered(2)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    write_page(GRAPH, folder / "layered.html")
    write_page(small(), folder / "small.html")
    return folder


@pytest.fixture
def layers(browser: Browser, files: Path) -> Iterator[Page]:
    with viewed(browser, files / "layered.html") as found:
        yield found.page


@pytest.fixture
def few(browser: Browser, files: Path) -> Iterator[Page]:
    with viewed(browser, files / "small.html") as found:
        found.page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        settle(found.page)
        yield found.page


def look(page: Page, **view: object) -> None:
    page.evaluate("(view) => viewer.dispatch({type: 'set', view})", view)
    settle(page)


def listed(page: Page) -> list[str]:
    return page.locator(".nodes tbody th button").all_text_contents()


def numbers(page: Page, selector: str) -> list[float]:
    texts = page.locator(selector).all_text_contents()
    plain = [text.replace("−", "-").strip("+%<") for text in texts if text]
    return [float(text) for text in plain]


def test_what_a_search_finds_is_listed_by_influence_and_what_is_hidden_last(layers: Page):
    look(layers, search="feature", nodes=0.4, tab="list")
    shown = layers.locator(".nodes tbody tr:not(:has(small))").count()
    names = listed(layers)
    influence = dict(zip(map(str, GRAPH.nodes), strengths(GRAPH).influence.tolist(), strict=True))
    assert 0 < shown < len(names)
    assert len(names) == np.sum([name.startswith("feature") for name in influence])
    for part in (names[:shown], names[shown:]):
        assert all(influence[one] >= influence[other] - 1e-9 for one, other in pairwise(part))
    assert influence[names[shown]] < influence[names[shown - 1]]
    layers.locator('[data-key="order node"]').click()
    settle(layers)
    assert listed(layers)[:shown] == sorted(names[:shown])
    assert listed(layers)[shown:] == sorted(names[shown:])
    look(layers, search="")
    assert listed(layers) == sorted(listed(layers))  # a person's choice stays


def test_the_sorted_column_says_in_which_direction(layers: Page):
    look(layers, nodes=1, tab="list")
    for name, said in (("influence", "descending"), ("node", "ascending"), ("label", "ascending")):
        layers.locator(f'[data-key="order {name}"]').click()
        settle(layers)
        assert layers.locator("th[aria-sort]").all_text_contents() == [name]
        expect(layers.locator("th[aria-sort]")).to_have_attribute("aria-sort", said)
    layers.locator('[data-key="order influence"]').click()
    settle(layers)
    falling = numbers(layers, ".nodes tbody td:nth-child(4)")
    assert len(falling) > 5
    assert falling == sorted(falling, reverse=True)
    empty = [not text for text in layers.locator(".nodes td:nth-child(4)").all_text_contents()]
    assert empty == sorted(empty)  # targets have no number and come last


def test_inputs_and_outputs_are_listed_by_the_share_that_they_show(layers: Page):
    look(layers, nodes=1, edges=1)
    checked = 0
    for row in range(len(GRAPH)):
        click(layers, str(GRAPH.nodes[row]))
        for title in ("Fed by", "Feeds"):
            sizes = [
                abs(one)
                for one in numbers(layers, f'section[aria-label="{title}"] li .link > .share')
            ]
            assert sizes == sorted(sizes, reverse=True)
            checked += len(sizes) > 2
    assert checked > 5


def drawing(page: Page) -> str:
    return page.evaluate("paintGraphs(viewer, viewer.shown, svgPen).file()")


def colourfulness(text: str) -> list[int]:
    """Of each edge of a drawing, the largest difference of two channels of its colour."""
    colours = re.findall(r'<path d="M[^"]*C[^"]*" fill="none" stroke="#(\w{6})"', text)
    channels = [[int(one[at : at + 2], 16) for at in (0, 2, 4)] for one in colours]
    return [max(one) - min(one) for one in channels]


def test_edges_and_labels_are_dimmed_with_their_nodes(few: Page):
    look(few, faint=True)
    before = drawing(few)
    bright = colourfulness(before)
    assert max(bright) > 100
    assert ">\u2068Texas\u2069<" in before
    assert ">city<" in before.replace("\u2068", "").replace("\u2069", "")
    look(few, search="1/7@2")
    after = drawing(few)
    assert max(colourfulness(after)) < 0.2 * max(bright)
    assert few.evaluate("document.querySelector('canvas.faint').style.opacity") == "0.12"
    assert ">\u2068Texas\u2069<" in after
    assert ">city<" not in after.replace("\u2068", "").replace("\u2069", "")
    ink = few.evaluate("viewer.palette.ink")
    predictions = re.findall(r'<text [^>]*rotate[^>]* fill="([^"]+)"[^>]*font-weight="600"', after)
    assert predictions
    assert ink not in predictions


def test_a_dimmed_pin_is_a_ring(few: Page):
    gold = few.evaluate("viewer.palette.pin")
    few.evaluate(f"viewer.dispatch({{type: 'pin', node: '{EARLY}'}})")
    settle(few)
    assert f'fill="{gold}"' in drawing(few)
    look(few, search="1/7@2")
    assert f'fill="{gold}"' not in drawing(few)
    assert f'fill="none" stroke="{gold}"' in drawing(few)


def test_the_plot_has_a_frame_by_keyboard_alone_and_never_in_print(few: Page):
    style = "getComputedStyle(document.querySelector('.plot')).outlineStyle"
    few.keyboard.press("?")
    few.keyboard.press("Escape")
    few.mouse.click(*place(few, OTHER))
    settle(few)
    assert few.evaluate("document.activeElement.className") == "plot"
    assert few.evaluate(style) == "none"
    few.keyboard.press("ArrowUp")
    settle(few)
    assert few.evaluate(style) == "solid"
    few.emulate_media(media="print")
    assert few.evaluate(style) == "none"


def test_fields_have_the_colours_of_their_kinds(few: Page):
    look(few, tab="fields")
    few.wait_for_selector(".fields .scatterlayer .point")
    drawn = few.evaluate(
        "document.querySelector('.fields').data.map((t) => [t.name, t.marker.color])"
    )
    palette = few.evaluate("viewer.palette")
    names = {"token": "token", "feature": "feature", "error": "error", "logit": "target"}
    assert dict(drawn) == {kind: palette[name] for kind, name in names.items()}


def test_checks_break_no_words_in_a_narrow_panel_and_their_plot_has_axes(few: Page):
    look(few, tab="about", side=260)
    broken = few.evaluate(
        """[...document.querySelectorAll("#panel table th, #panel table td")].flatMap((cell) => {
            const words = [];
            const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
            for (let node; (node = walk.nextNode()); ) {
                const all = node.textContent.matchAll(/[\\p{L}\\d.+\\u2011]+/gu);
                for (const {index, 0: word} of all) {
                    const range = document.createRange();
                    range.setStart(node, index);
                    range.setEnd(node, index + word.length);
                    const tops = [...range.getClientRects()].map(({top}) => Math.round(top));
                    if (new Set(tops).size > 1) words.push(word);
                }
            }
            return words;
        })"""
    )
    assert broken == []
    plot = few.locator("svg.agreement")
    texts = plot.locator("text").all_text_contents()
    assert texts == ["−4", "−4", "0", "0", "4", "4", "predicted", "measured"]
    expect(plot).to_have_attribute("aria-label", re.compile("of 1 effects, both from −4 to 4"))
    x, y = (float(plot.locator("circle").get_attribute(name) or 0) for name in ("cx", "cy"))
    assert (x, y) == pytest.approx(
        (44, 10 + 140 * (1 + 3.5 / 4) / 2)
    )  # predicted −4, measured −3.5
