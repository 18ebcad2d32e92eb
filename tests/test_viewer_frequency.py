"""The slider that hides features which fire on too many tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description
from tests.browser import Opened, needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, OTHER, hash_of, reloaded, settle, shown, small
from viz.page.page import write_page
from viz.page.part import part
from viz.page.payload import graph_data, placed

SLIDER = '[data-key="slider frequency"]'


def counted() -> AttributionGraph:
    """Features that fire on 25 % and 0.1 % of tokens, and one that nobody counted."""
    often, seldom = (Description(label="", frequency=share) for share in (0.25, 0.001))
    return replace(small(), descriptions={"1/7": often, "0/5": seldom})


@pytest.fixture
def counted_page(browser: Browser, tmp_path: Path) -> Iterator[Opened]:
    write_page(counted(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        found.page.evaluate("viewer.dispatch({type: 'set', view: {nodes: 1, edges: 1}})")
        yield found


@needs_chromium
def test_features_that_fire_too_often_are_hidden_and_the_page_says_how_many(counted_page: Opened):
    page = counted_page.page
    everything = shown(page)
    said = page.locator(".filters .slider output")
    expect(said).to_have_text("any")
    page.locator(SLIDER).fill("-2")
    assert everything - shown(page) == {LATE}
    expect(said).to_have_text("≤ 1%, 1 hidden")
    page.locator(SLIDER).fill("-4")
    assert everything - shown(page) == {LATE, EARLY}
    assert OTHER in shown(page)  # nobody knows how often it fires
    expect(said).to_have_text("≤ 0.01%, 2 hidden")
    assert page.evaluate(
        "[...viewer.faint(0)].every((e) => viewer.visible(0)[viewer.graph.source[e]])"
    )
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{LATE}'}})")
    assert everything - shown(page) == {EARLY}  # what is pinned is seen
    page.locator('[data-key="reset"]').click()
    assert shown(page) == everything
    assert page.locator(SLIDER).input_value() == "0"


@needs_chromium
def test_frequency_is_set_by_keys_kept_and_shared(counted_page: Opened):
    page = counted_page.page
    everything = shown(page)
    page.locator(".plot").focus()
    for _ in range(3):
        page.keyboard.press("<")
    settle(page)
    assert page.evaluate("viewer.view.frequency") == pytest.approx(10**-0.75, rel=1e-5)
    assert everything - shown(page) == {LATE}
    page = reloaded(counted_page)
    assert everything - shown(page) == {LATE}
    page.locator('[data-key="Link"]').click()
    address = page.url
    page.keyboard.press("Escape")
    for _ in range(3):
        page.keyboard.press(">")
    assert shown(page) == everything
    page.evaluate("(hash) => { location.hash = hash }", address.partition("#")[2])
    expect(page.locator(".filters .slider output")).to_contain_text("1 hidden")
    page.evaluate("(hash) => { location.hash = hash }", hash_of({"view": {"frequency": -3}}))
    settle(page)
    assert page.evaluate("viewer.view.frequency") == pytest.approx(10**-0.75, rel=1e-5)


@needs_chromium
def test_where_nobody_counted_there_is_no_slider(browser: Browser, tmp_path: Path):
    write_page(replace(small(), descriptions={}), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        expect(found.page.locator(SLIDER)).to_have_count(0)
        found.page.keyboard.press("<")
        expect(found.page.locator("#status")).to_contain_text("is unknown")
        assert found.page.evaluate("viewer.view.frequency") is None


def test_frequencies_are_in_the_page_even_where_examples_have_no_room(monkeypatch):
    monkeypatch.setattr("viz.page.payload._ROOM", 0)
    held = part(counted())
    data = graph_data(held, placed(held))
    assert data["features"] == {}
    known = dict(zip(data["nodes"]["names"], data["nodes"]["frequency"], strict=True))
    assert known[LATE] == 0.25
    assert known[EARLY] == np.float32(0.001)
    assert np.isnan(known[OTHER])
