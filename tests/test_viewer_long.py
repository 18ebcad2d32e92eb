"""Long prompts: the first, the last and the most influential tokens are seen, the others folded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import radians, sin
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from graphs.core.graph import AttributionGraph
from tests.browser import needs_chromium, viewed
from tests.graph_oracles import make_graph
from tests.test_viewer import settle
from viz.page.page import write_page

pytestmark = needs_chromium
COUNT = 79
STRONG = (20, 33, 47)  # positions


def long() -> AttributionGraph:
    tokens = tuple(f" word{pos}" for pos in range(COUNT))
    names = [f"token:{pos}@{pos}" for pos in range(COUNT)] + [f"feature:0/1@{COUNT - 1}"]
    logit = f"logit:1@{COUNT - 1}"
    edges = {
        (name, names[-1]): 5.0 if pos in STRONG else 0.1 for pos, name in enumerate(names[:-1])
    }
    return make_graph([*names, logit], edges | {(names[-1], logit): 1.0}, [0.9], tokens=tokens)


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    write_page(long(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.set_viewport_size({"width": 390, "height": 844})
        found.page.wait_for_timeout(200)  # it is drawn anew
        settle(found.page)
        yield found.page


def shown(page: Page) -> list[int]:
    settle(page)
    return [int(text.strip()[4:]) for text in page.locator("#prompt .token").all_inner_texts()]


def test_the_strip_shows_the_ends_and_what_matters_and_unfolds(page: Page):
    assert {0, 1, COUNT - 2, COUNT - 1, *STRONG} <= {*shown(page)}
    assert len(shown(page)) == 12
    fold = page.locator('[data-key="fold"]')
    expect(fold).to_have_text(f"… {COUNT - 12} more")
    page.locator('[data-key="token 33"]').click()
    fold.click()
    assert shown(page) == [*range(COUNT)]
    expect(page.locator('[data-key="token 33"]')).to_have_attribute("aria-pressed", "true")
    page.locator('[data-key="token 5"]').click()
    fold.click()
    assert 5 in shown(page)  # it is chosen
    assert len(shown(page)) == 12


def test_the_last_token_is_seen_in_a_narrow_window(page: Page):
    last, strip = (
        page.locator(place).bounding_box()
        for place in (f'[data-key="token {COUNT - 1}"]', "#prompt")
    )
    assert last is not None
    assert strip is not None
    assert last["x"] + last["width"] <= 390
    assert last["y"] + last["height"] <= strip["y"] + strip["height"]
    assert last["y"] < 844
    under = page.evaluate(
        """(() => {
            const found = [];
            const scene = viewer.scene(0);
            drawAxes({...svgPen(1, 1), text: (text, x) => found.push([text, x])}, scene);
            return found.filter(([text]) => text.startsWith("word"));
        })()"""
    )
    assert under[-1][0] == f"word{COUNT - 1}"
    # At 40 degrees, letters of 12 pixels are at least 11 pixels apart: none is over another.
    assert min(b[1] - a[1] for a, b in pairwise(under)) * sin(radians(40)) >= 10.9
