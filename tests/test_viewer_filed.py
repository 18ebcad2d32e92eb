"""Annotations in the browser beside those in the file: a person is told, asked, and loses none."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

import graphs
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from tests.browser import needs_chromium, visit
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, settle, small, until
from viz.page.page import write_page

pytestmark = needs_chromium

FILED = Annotations(pins=(EARLY, LOGIT), labels={LATE: "of the file"})


def opened(page: Page, path: Path, annotations: Annotations = NO_ANNOTATIONS) -> None:
    """Write the page anew with these annotations, and open it."""
    page.wait_for_timeout(350)  # what was done is stored a little later
    write_page(small(), path, annotations)
    visit(page, path)
    page.wait_for_selector("html[data-ready]")


def pin(page: Page, name: str) -> None:
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{name}'}})")
    settle(page)


def pins(page: Page) -> list[str]:
    settle(page)
    return page.evaluate("viewer.notes.pins")


def revert(page: Page):
    return page.locator('[data-key="Revert to file"]')


def test_a_person_is_asked_when_the_file_has_changed_and_takes_the_files(
    page: Page, tmp_path: Path
):
    asked = page.locator("#filed p")
    opened(page, tmp_path / "p.html")
    pin(page, LATE)
    opened(page, tmp_path / "p.html")
    expect(asked).to_have_count(0)  # the file is as it was
    for _ in range(2):  # it asks until there is an answer
        opened(page, tmp_path / "p.html", FILED)
        expect(asked).to_contain_text("differ in 3 pins and 1 label.")
        assert pins(page) == [LATE]
    page.get_by_role("button", name="Take the file's").click()
    assert pins(page) == [EARLY, LOGIT]
    expect(asked).to_have_count(0)
    page.keyboard.press("u")
    assert pins(page) == [LATE]
    opened(page, tmp_path / "p.html", FILED)
    assert pins(page) == [LATE]
    expect(asked).to_have_count(0)


def test_who_keeps_their_own_can_revert_to_the_file_at_any_time(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html")
    expect(revert(page)).to_be_disabled()
    pin(page, LATE)
    expect(revert(page)).to_be_enabled()
    opened(page, tmp_path / "p.html", FILED)
    page.get_by_role("button", name="Keep mine").click()
    settle(page)
    for _ in range(2):
        expect(page.locator("#filed")).to_be_hidden()
        assert pins(page) == [LATE]
        opened(page, tmp_path / "p.html", FILED)
    revert(page).click()
    assert pins(page) == [EARLY, LOGIT]
    expect(revert(page)).to_be_disabled()
    page.keyboard.press("u")
    assert pins(page) == [LATE]
    expect(revert(page)).to_be_enabled()


def test_who_changed_nothing_gets_what_the_file_now_says_and_is_told(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html", FILED)
    page.evaluate(f"viewer.dispatch({{type: 'click', node: '{LATE}'}})")
    opened(page, tmp_path / "p.html", Annotations(pins=(OTHER,)))
    expect(page.locator("#status")).to_contain_text("have changed since your last visit")
    expect(page.locator("#filed")).to_be_hidden()
    assert pins(page) == [OTHER]
    page.keyboard.press("u")
    assert pins(page) == [EARLY, LOGIT]


def test_who_finds_their_own_in_the_file_is_asked_nothing(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html")
    pin(page, LATE)
    opened(page, tmp_path / "p.html", Annotations(pins=(LATE,)))
    expect(page.locator("#filed")).to_be_hidden()
    expect(page.locator("#status")).to_have_text("")
    expect(revert(page)).to_be_disabled()


def test_a_page_that_is_only_opened_keeps_nothing(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html", FILED)
    page.wait_for_timeout(350)
    assert page.evaluate("localStorage.length") == 0
    pin(page, LATE)
    page.wait_for_timeout(350)
    assert page.evaluate("localStorage.length") == 1


def test_an_answer_in_one_window_is_one_in_the_other(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html")
    pin(page, LATE)
    opened(page, tmp_path / "p.html", FILED)
    other = page.context.new_page()
    opened(other, tmp_path / "p.html", FILED)
    expect(other.locator("#filed")).to_be_visible()
    page.get_by_role("button", name="Keep mine").click()
    until(other, "document.getElementById('filed').hidden")
    assert pins(other) == [LATE]


def test_what_is_kept_of_old_pages_counts_as_changed(page: Page, tmp_path: Path):
    """They did not keep what the file said."""
    opened(page, tmp_path / "p.html")
    page.evaluate(
        "(pins) => localStorage.setItem(storageKey(viewer.graphs), JSON.stringify("
        "{notes: [{pins, labels: {}, groups: [], places: {}, hidden: []}]}))",
        [LATE],
    )
    opened(page, tmp_path / "p.html")
    expect(page.locator("#filed")).to_be_hidden()  # of a file without annotations nothing is lost
    page.evaluate("viewer.changed = false")
    opened(page, tmp_path / "p.html", FILED)
    expect(page.locator("#filed")).to_be_visible()


def test_annotations_are_the_same_in_any_order(page: Page, tmp_path: Path):
    opened(page, tmp_path / "p.html")
    one = graphs.Annotations(
        pins=(EARLY, LATE),
        labels={EARLY: "a", LATE: "b"},
        groups=(graphs.Group(name="g", members=(EARLY, OTHER)),),
        places={"g": (1.0, 2.0), LATE: (3.0, 4.0)},
        hidden=(OTHER, LOGIT),
    )
    turned = graphs.Annotations(
        pins=(LATE, EARLY),
        labels={LATE: "b", EARLY: "a"},
        groups=(graphs.Group(name="g", members=(OTHER, EARLY)),),
        places={LATE: (3.0, 4.0), "g": (1.0, 2.0)},
        hidden=(LOGIT, OTHER),
    )
    others = (
        one.model_copy(update={"pins": (EARLY,)}),
        one.model_copy(update={"labels": {EARLY: "a", LATE: "c"}}),
        one.model_copy(update={"groups": (graphs.Group(name="h", members=(EARLY, OTHER)),)}),
        one.model_copy(update={"places": {"g": (1.0, 2.0)}}),
        one.model_copy(update={"hidden": (OTHER, EARLY)}),
    )
    same = page.evaluate(
        "(all) => all.map((other) => sameNotes(notesFrom(all[0]), notesFrom(other)))",
        [found.model_dump(mode="json") for found in (one, turned, *others)],
    )
    assert same == [True, True, *[False] * 5]
