"""Pages of no node and of many, of hostile names and names that run to the left; skip links."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.core.annotations import Annotations, Group
from graphs.core.graph import AttributionGraph
from tests.browser import leave, needs_chromium, new_window, viewed, visit
from tests.graph_oracles import make_graph
from tests.test_paper_files import hostile
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, settle, small, until
from tests.test_viewer_groups import dispatch, focused, press
from viz.page.page import write_page

pytestmark = needs_chromium

HTML = "<img src=x onerror=alert(1)> \"quoted\" & 'so', and on"


def of_size(nodes: int) -> AttributionGraph:
    """The small graph's targets, a layered random graph of 10,000 nodes, or nothing."""
    if nodes < 2:
        return small().take(np.array([small().find(LOGIT)] * nodes, dtype=np.int64))
    rng = random.Random(0)
    count = nodes - 22
    names = [f"token:{pos}@{pos}" for pos in range(20)]
    names += [f"feature:{n // 500}/{n}@{n % 20}" for n in range(count)]
    outer = ["logit:7@19", "logit:8@19"]
    edges = {
        (names[rng.randrange(20 + 500 * (n // 500))], names[20 + n]): rng.uniform(-1, 1)
        for n in range(count)
        for _ in range(4)
    }
    edges |= {(name, end): rng.uniform(-1, 1) for name in names[-2000:] for end in outer}
    return make_graph([*names, *outer], edges, [0.6, 0.3], tokens=tuple(map(str, range(20))))


@pytest.mark.parametrize("nodes", [0, 1, 10_000])
def test_graphs_of_any_size_open_on_a_summary(browser: Browser, tmp_path: Path, nodes: int):
    graph = of_size(nodes)
    assert len(graph) == nodes
    write_page(graph, tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        page = found.page
        expect(page.locator(".overview")).to_be_visible()
        boxes = page.locator(".overview .box:not(.more)")
        assert boxes.count() == nodes if nodes < 2 else 2 < boxes.count() <= 8 + 5 + 4
        if nodes < 2:
            expect(page.locator(".summary .caption")).to_have_text("No influence between boxes.")
        press(page, "s")
        expect(page.locator(".plot")).to_be_visible()
        assert page.evaluate("viewer.graph.count") > 0 or nodes == 0
        for key in ("ArrowUp", "Enter", "p", "[", "s"):
            press(page, key)


def test_sentences_of_names_that_run_to_the_left_run_to_the_right(browser: Browser, tmp_path: Path):
    graph = hostile(("<bos>", " العاصمة", " של", " המדינה", " هي", "?"), " القدس")
    groups = (
        Group(name="בירה, «عاصمة»", members=("feature:0/1@5",)),
        Group(name="say القدس", members=("feature:1/1@5",)),
    )
    write_page(graph, tmp_path / "page.html", Annotations(groups=groups))
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        places = found.page.evaluate("""["?", "בירה", "say", "carries", "of what"].map((word) => {
            const sentence = document.querySelector(".sentence");
            const text = document.createTreeWalker(sentence, NodeFilter.SHOW_TEXT).nextNode();
            const range = document.createRange();
            range.setStart(text, text.data.indexOf(word));
            range.setEnd(text, text.data.indexOf(word) + word.length);
            return range.getBoundingClientRect().left;
        })""")
        assert places == sorted(places)
        words = found.page.locator("#prompt button").evaluate_all(
            "all => all.map((b) => b.getBoundingClientRect().left)"
        )
        assert len(words) == 6
        assert words == sorted(words)


def test_names_of_boxes_are_texts_and_stay_inside(browser: Browser, tmp_path: Path):
    graph = hostile(("<bos>", "</script>", "'\"", "a" * 300, "\u202eabc"), "x" * 200)
    groups = (
        Group(name=HTML, members=("feature:0/1@4",)),
        Group(name="W" * 300, members=("feature:1/1@4",)),
    )
    write_page(graph, tmp_path / "page.html", Annotations(groups=groups))
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        page = found.page
        assert page.locator("main img").count() == 0
        expect(page.get_by_role("button", name=HTML[:30]).first).to_be_visible()
        outside = page.locator(".overview .box").evaluate_all("""all => all.filter((box) => {
            const frame = box.querySelector("rect:last-of-type").getBoundingClientRect();
            return [...box.querySelectorAll("text")].some((text) => {
                const {left, right} = text.getBoundingClientRect();
                return left < frame.left || right > frame.right;
            });
        }).map((box) => box.ariaLabel)""")
        assert outside == []
        page.get_by_role("button", name=HTML[:30]).first.click()
        settle(page)
        expect(page.locator('section[aria-label="the chosen box"] h2')).to_contain_text(HTML[:30])
        assert page.evaluate("document.documentElement.scrollWidth") <= 1440


def test_what_is_annotated_in_one_window_is_kept_by_another(browser: Browser, tmp_path: Path):
    write_page(small(), tmp_path / "page.html")
    one, other = new_window(browser), new_window(browser)
    for page in (one, other):
        visit(page, tmp_path / "page.html")
        page.wait_for_selector("html[data-ready]")
    dispatch(one, f"type: 'pin', node: '{LATE}'")
    until(other, "viewer.notes.pins.length === 1")
    dispatch(other, f"type: 'group', name: 'mine', members: ['{EARLY}', '{OTHER}']")
    until(one, "viewer.notes.groups.length === 1")
    for page in (one, other):
        assert page.evaluate("[viewer.notes.pins, viewer.notes.groups[0].name]") == [[LATE], "mine"]
    # A window in which nothing was done stores nothing when it is closed.
    leave(other)
    one.reload()
    one.wait_for_selector("html[data-ready]")
    assert one.evaluate("[viewer.notes.pins, viewer.notes.groups[0].name]") == [[LATE], "mine"]
    leave(one)


def seen(page: Page) -> str:
    """The text of what has the focus, if it can be seen."""
    return page.evaluate(
        """(() => {
            const style = getComputedStyle(document.activeElement);
            return style.clipPath === "none" ? document.activeElement.innerText : "";
        })()"""
    )


def test_the_first_keys_skip_to_the_graph_and_to_the_panel(browser: Browser, tmp_path: Path):
    write_page(small(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        page = found.page
        address = page.url
        press(page, "Tab")
        assert seen(page) == "Skip to the graph"
        press(page, "Enter")
        assert (focused(page) or "").startswith("box ")
        assert page.evaluate("document.querySelectorAll('#skips a')[0].matches(':focus')") is False
        press(page, "s")
        page.evaluate("document.activeElement.blur(); document.querySelector('#skips a').focus()")
        press(page, "Enter")
        assert page.evaluate("document.activeElement.classList.contains('plot')")
        page.evaluate("document.querySelector('#skips a').focus()")
        press(page, "Tab")
        assert seen(page) == "Skip to the panel"
        press(page, "Enter")
        assert focused(page) == "tab node"
        assert page.url == address
