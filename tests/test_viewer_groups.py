"""Supernodes and the boxes of the subgraph, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, OTHER, settle, small
from viz.page import write_page

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """A supernode of three, seen from one of its members."""
    write_page(small(), tmp_path / "page.html")
    with viewed(browser, tmp_path / "page.html") as found:
        dispatch(found.page, f"type: 'group', members: ['{EARLY}', '{OTHER}', '{LATE}'], name: 'x'")
        dispatch(found.page, f"type: 'click', node: '{LATE}'")
        yield found.page


def dispatch(page: Page, change: str) -> None:
    page.evaluate(f"viewer.dispatch({{{change}}})")
    settle(page)


def groups(page: Page) -> list[tuple[str, list[str]]]:
    settle(page)
    return [(g["name"], g["members"]) for g in page.evaluate("viewer.notes.groups")]


def focused(page: Page) -> str:
    settle(page)
    return page.evaluate("document.activeElement.dataset.key ?? ''")


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        settle(page)


def test_members_of_a_supernode_are_listed_and_walked(page: Page):
    members = page.locator('section[aria-label="members of x"] button.link')
    rows = [members.nth(i).get_attribute("data-node") for i in range(members.count())]
    assert rows == [LATE, EARLY, OTHER]  # by influence
    expect(members.first).to_have_attribute("aria-current", "true")
    expect(members.first).to_contain_text("Texas")
    members.nth(2).focus()
    press(page, "ArrowUp")
    assert focused(page) == f"member {EARLY}"  # the buttons between are passed over
    press(page, "Enter")
    assert page.evaluate("viewer.view.clicked") == [EARLY]


def test_a_member_is_taken_out_with_the_mouse_and_put_back_by_undoing(page: Page):
    page.get_by_role("button", name="take Texas out of x").click()
    assert groups(page) == [("x", [EARLY, OTHER])]
    assert page.evaluate("viewer.notes.pins") == [LATE]  # it stays in the subgraph
    expect(page.locator(".part")).to_have_count(2)
    expect(page.locator("section.members")).to_have_count(0)  # the clicked node is in no group
    press(page, "u")
    assert groups(page) == [("x", [EARLY, OTHER, LATE])]
    assert page.evaluate("viewer.notes.pins") == []


def test_members_are_taken_out_by_key_to_the_last(page: Page):
    page.locator(f'[data-key="member {OTHER}"]').focus()
    press(page, "Delete")
    assert groups(page) == [("x", [EARLY, LATE])]
    assert focused(page) == f"member {EARLY}"
    press(page, "Delete")
    assert groups(page) == [("x", [LATE])]  # one may stay, with the name that was given
    assert focused(page) == f"member {LATE}"
    press(page, "Delete")
    assert groups(page) == []
    assert page.evaluate("viewer.notes.pins") == [OTHER, EARLY, LATE]


def test_a_suggested_group_that_was_changed_is_a_persons_own(page: Page):
    suggested = f"[{{name: 'y', members: ['{EARLY}', '{OTHER}'], automatic: true}}]"
    dispatch(page, f"type: 'revert', file: {{...NO_NOTES, groups: {suggested}}}")
    dispatch(page, f"type: 'leave', node: '{EARLY}'")
    dispatch(page, f"type: 'suggest', groups: {suggested}")
    assert groups(page) == [("y", [OTHER])]
    before = page.evaluate("viewer.state.past.length")
    dispatch(page, f"type: 'leave', node: '{LATE}'")  # which is in none
    assert page.evaluate("viewer.state.past.length") == before


def test_members_that_the_page_lacks_are_listed_and_can_leave(page: Page):
    dispatch(page, f"type: 'group', members: ['{EARLY}', 'feature:9/9@1'], name: 'far'")
    dispatch(page, f"type: 'click', node: '{EARLY}'")
    member = page.locator('[data-key="member feature:9/9@1"]')
    expect(member).to_contain_text("not in this page")
    expect(member).to_be_disabled()
    page.locator('[data-key="leave feature:9/9@1"]').click()
    assert groups(page)[-1] == ("far", [EARLY])
