"""The page's parts are compressed: it is small, and says where it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import headwater as hw
from tests.browser import needs_chromium, visit
from tests.test_viewer import small
from viz.page.page import page_text, write_page

LARGEST_PAGE = 2_500_000  # bytes of the page of the README's prompt


def test_the_page_of_the_first_example_is_small():
    graph = hw.trace("The capital of the state containing Dallas is")
    text = page_text([(graph, graph.annotations)])
    assert len(text.encode()) < LARGEST_PAGE


@needs_chromium
@pytest.mark.parametrize("broken", ["browser", "data", "viewer"])
def test_a_page_that_cannot_be_unpacked_says_why_and_shows_its_table(
    page: Page, tmp_path: Path, broken: str
):
    path = tmp_path / "page.html"
    write_page(small(), path)
    if broken == "browser":
        page.add_init_script("delete window.DecompressionStream")
    else:
        text = path.read_text()
        begin = text.index(f'id="{broken}">') + 100
        path.write_text(text[:begin] + text[begin + 500 :])
    visit(page, path)
    said = "too old" if broken == "browser" else "damaged or was not saved whole"
    expect(page.get_by_role("alert")).to_contain_text(said)
    expect(page.locator("tbody tr")).to_have_count(len(small()))
    expect(page.locator("tbody tr th").first).to_be_visible()
