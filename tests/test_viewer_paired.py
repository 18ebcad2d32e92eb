"""Two summaries side by side: boxes that do the same have one place and light up together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import graphs
from circuits.atlas.shipped import atlas_transcoders
from circuits.features.files.reading import read_transcoders
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import trace
from tests.browser import needs_chromium, viewed
from tests.test_counterparts import FEATURES, OTHERS, chain, shown
from tests.test_viewer import settle
from viz.page.page import write_pages

pytestmark = needs_chromium
CITIES = ("Dallas", "Oakland")


@pytest.fixture(scope="module")
def pair_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the same question about two cities."""
    subject = read_subject("atlas-large")
    transcoders = read_transcoders(atlas_transcoders("atlas-large"))
    traced = [
        trace(
            read_prompt(f"The capital of the state containing {city} is", subject.tokenizer),
            subject,
            transcoders,
        )
        for city in CITIES
    ]
    path = tmp_path_factory.mktemp("pair") / "page.html"
    write_pages([(graph, graphs.NO_ANNOTATIONS) for graph in traced], path)
    return path


@pytest.fixture
def page(browser: Browser, pair_file: Path) -> Iterator[Page]:
    with viewed(browser, pair_file, summary=True) as found:
        yield found.page


def box(page: Page, side: int, name: str) -> Locator:
    """A box of one of the two summaries, by its name."""
    return page.locator(".overview").nth(side).locator(f'[role=button][aria-label^="{name},"]')


def place(page: Page, side: int, name: str) -> list[float]:
    """Where a box stands in its drawing."""
    return box(page, side, name).evaluate(
        "node => { const { x, y, width, height } = node.querySelector('rect').getBBox();"
        " return [x, y, width, height]; }"
    )


@pytest.mark.parametrize(
    ("here", "there"),
    [("Dallas", "Oakland"), ("Texas", "California"), ("Austin", "Sacramento"), ("capital",) * 2],
)
def test_counterparts_have_one_place_in_both_summaries(page: Page, here: str, there: str):
    assert place(page, 0, here) == place(page, 1, there)


def test_a_chosen_box_lights_its_counterpart_and_its_panel_has_both_sides(page: Page):
    box(page, 0, "Texas").click()
    settle(page)
    for side, name in enumerate(("Texas", "California")):
        expect(box(page, side, name)).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".overview [aria-pressed=true]")).to_have_count(2)
    rows = page.locator("table.sides tbody tr").all_text_contents()
    assert rows[0] == "nameTexasCalifornia"
    assert rows[1].startswith("enters")
    expect(page.locator(".summary.lacking")).to_have_count(0)


def test_a_box_without_counterpart_says_so_and_the_other_summary_dims(
    browser: Browser, tmp_path: Path
):
    one, _ = shown(FEATURES, chain("a", "b"))
    other, _ = shown(OTHERS, chain("x", "y", 0.05))
    write_pages([(graph, graphs.NO_ANNOTATIONS) for graph in (one, other)], tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html", summary=True) as found:
        page = found.page
        page.locator(".overview").first.locator(".box.group").first.click()
        settle(page)
        expect(page.locator("p.absent")).to_contain_text("No box of 2. has the same features")
        expect(page.locator(".summary.lacking")).to_have_count(1)
        expect(page.locator(".overview [aria-pressed=true]")).to_have_count(1)
