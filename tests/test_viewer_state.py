"""What changes make of the state, and what of it is stored: the pure functions of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import graphs
from graphs.core.annotations import Annotations
from tests.browser import needs_chromium, viewed
from tests.test_viewer import EARLY, LATE, LOGIT, OTHER, small
from viz.page.page import write_page

pytestmark = needs_chromium

NODES = [f"feature:0/{index}@1" for index in range(300)]


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path: Path = tmp_path_factory.mktemp("state") / "page.html"
    write_page(small(), path)
    with viewed(browser, path) as found:
        yield found.page


def changed(page: Page, *changes: dict[str, Any]) -> dict[str, Any]:
    """The state after these changes of the first one."""
    return page.evaluate("(all) => all.reduce(reduce, initialState(viewer.graphs))", list(changes))


def noted(page: Page, *changes: dict[str, Any]) -> dict[str, Any]:
    return changed(page, *changes)["notes"][0]


def group(name: str, *members: str, automatic: bool = False) -> dict[str, Any]:
    return {"name": name, "members": list(members), "automatic": automatic}


def grouped(name: str, *members: str) -> dict[str, Any]:
    return {"type": "group", "name": name, "members": list(members)}


UNDO, REDO = {"type": "undo"}, {"type": "redo"}
PIN, PIN_OTHER = ({"type": "pin", "node": name} for name in (EARLY, OTHER))


def test_undoing_goes_back_step_by_step_and_redoing_forth(page: Page):
    assert noted(page, PIN, PIN_OTHER, UNDO)["pins"] == [EARLY]
    assert noted(page, PIN, PIN_OTHER, UNDO, UNDO)["pins"] == []
    assert noted(page, PIN, PIN_OTHER, UNDO, UNDO, REDO)["pins"] == [EARLY]
    assert noted(page, PIN, PIN_OTHER, UNDO, UNDO, REDO, REDO)["pins"] == [EARLY, OTHER]
    assert noted(page, UNDO, REDO, PIN, REDO)["pins"] == [EARLY]  # there is nothing to redo


def test_what_was_undone_is_gone_after_another_change(page: Page):
    hide = {"type": "hide", "node": LATE}
    assert noted(page, PIN, UNDO, hide, REDO)["pins"] == []


def test_undoing_goes_back_two_hundred_steps(page: Page):
    state = changed(page, *({"type": "pin", "node": name} for name in NODES[:200]), PIN_OTHER)
    assert len(state["past"]) == 200


def test_a_change_that_changes_nothing_is_no_step(page: Page):
    nothing = [{"type": "tidy"}, {"type": "pinAll", "nodes": []}, grouped("x")]
    assert changed(page, *nothing)["past"] == []


def test_pins_are_two_hundred_at_most(page: Page):
    pins = {"type": "pinAll", "nodes": NODES}
    assert noted(page, pins)["pins"] == NODES[:200]
    assert noted(page, pins, {"type": "pin", "node": LATE})["pins"] == NODES[:200]
    assert noted(page, pins, {"type": "pin", "node": NODES[0]})["pins"] == NODES[1:200]
    ungroup = {"type": "ungroup", "name": "x"}
    assert len(noted(page, pins, grouped("x", LATE, LOGIT), ungroup)["pins"]) == 200
    assert (
        len(noted(page, pins, grouped("x", LATE), {"type": "leave", "node": LATE})["pins"]) == 200
    )


def test_a_node_is_in_one_group_and_an_empty_group_is_gone(page: Page):
    two = noted(page, grouped("one", EARLY, OTHER), grouped("two", OTHER, LATE))
    assert two["groups"] == [group("one", EARLY), group("two", OTHER, LATE)]
    all_three = noted(page, grouped("one", EARLY), grouped("two", EARLY, OTHER))
    assert all_three["groups"] == [group("two", EARLY, OTHER)]


def test_groups_have_names_of_their_own(page: Page):
    names = [
        one["name"]
        for one in noted(page, *(grouped("x", name) for name in (EARLY, OTHER, LATE)))["groups"]
    ]
    assert names == ["x", "x (2)", "x (3)"]
    renamed = noted(
        page,
        grouped("x", EARLY),
        grouped("y", OTHER),
        {"type": "rename", "name": "y", "text": "x"},
        {"type": "rename", "name": "x", "text": "x"},
    )
    assert [one["name"] for one in renamed["groups"]] == ["x", "x (2)"]


def test_a_renamed_group_stays_where_it_was_put_and_is_a_persons_own(page: Page):
    suggest = {"type": "suggest", "groups": [group("x", EARLY, OTHER, automatic=True)]}
    move = {"type": "move", "name": "x", "x": 3, "y": 4}
    found = noted(page, suggest, move, {"type": "rename", "name": "x", "text": "y"})
    assert found["groups"] == [group("y", EARLY, OTHER)]
    assert found["places"] == {"y": [3, 4]}


def test_suggested_groups_replace_those_before_and_have_several_members(page: Page):
    first = {"type": "suggest", "groups": [group("x", EARLY, OTHER, automatic=True)]}
    second = {"type": "suggest", "groups": [group("y", EARLY, LATE, automatic=True)]}
    assert noted(page, first, second)["groups"] == [group("y", EARLY, LATE, automatic=True)]
    kept = noted(page, grouped("mine", EARLY), first)["groups"]
    assert kept == [group("mine", EARLY)]  # what is left of the suggestion is one node


def test_ungrouping_pins_the_members(page: Page):
    found = noted(page, PIN, grouped("x", EARLY, LATE), {"type": "ungroup", "name": "x"})
    assert (found["groups"], found["pins"]) == ([], [EARLY, LATE])


def test_tidying_forgets_places_alone(page: Page):
    move = {"type": "move", "name": EARLY, "x": 3, "y": 4}
    found = noted(page, PIN, move, {"type": "tidy"})
    assert (found["places"], found["pins"]) == ({}, [EARLY])


def test_a_click_changes_what_is_looked_at_and_a_second_takes_it_back(page: Page):
    click = {"type": "click", "node": LATE}

    def view(*changes: dict[str, Any]) -> dict[str, Any]:
        return changed(page, *changes)["view"]

    assert view(click)["clicked"] == [LATE]
    assert view(click, click)["clicked"] == [None]
    assert view(click, {**click, "stay": True})["clicked"] == [LATE]
    minus = {"type": "set", "view": {"minus": LOGIT, "tab": "paths"}}
    assert view(minus, click)["minus"] is None  # it was of the one before
    assert view(minus, click)["tab"] == "paths"
    assert view({"type": "set", "view": {"tab": "about"}}, click)["tab"] == "node"
    start = {"type": "set", "view": {"from": EARLY}}
    assert view(start, click, {"type": "clear"})["from"] is None


def test_reset_takes_all_filters_away(page: Page):
    filters = {
        "range": [0, 0.5, 0, 0.5],
        "layers": [0, 1],
        "tokens": [1],
        "search": "x",
        "without": ["error"],
    }
    state = changed(page, {"type": "set", "view": filters}, {"type": "reset"})
    assert state["view"] == changed(page)["view"]


def test_the_label_of_a_node_comes_before_that_of_its_feature(page: Page):
    texts = page.evaluate(
        """([late, early]) => {
            const labels = {[late]: 'node', '1/7': 'feature', '0/5': 'other feature'};
            const notes = {...NO_NOTES, labels};
            const row = (name) => viewer.graph.place.get(name);
            return [late, early].map((name) => labelOf(viewer.graph, notes, row(name)));
        }""",
        [LATE, EARLY],
    )
    assert texts == ["node", "other feature"]


def test_pages_of_several_graphs_are_stored_apart_from_pages_of_one(page: Page):
    keys = page.evaluate(
        "[[viewer.graph], [viewer.graph, {key: 'b'}], [viewer.graph, {key: 'c'}]].map(storageKey)"
    )
    assert len(set(keys)) == 3


def test_an_address_holds_any_text_and_not_too_much(page: Page):
    said = [*(chr(code) for code in range(33, 127)), "ÿ>>>???", "東京", "🙂"]
    for text in said:
        hashed, back = page.evaluate(
            """(text) => {
                const labels = {[viewer.graph.names[2]]: text};
                const state = {...initialState(viewer.graphs), notes: [{...NO_NOTES, labels}]};
                const hash = sharedHash(viewer.graphs, state);
                return [hash, sharedState(hash)?.notes[0].labels[viewer.graph.names[2]]];
            }""",
            text * 3,
        )
        assert back == text * 3
        assert set(hashed[3:]).isdisjoint("+/=#")
    assert (
        page.evaluate(
            """() => {
            const labels = {[viewer.graph.names[2]]: 'x'.repeat(7000)};
            const state = {...initialState(viewer.graphs), notes: [{...NO_NOTES, labels}]};
            return sharedHash(viewer.graphs, state);
        }"""
        )
        is None
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("null", "no schema_version 1"),
        ('{"schema_version": 2, "pins": []}', "no schema_version 1"),
        ('{"schema_version": 1, "pins": [5]}', "not in the format of annotations"),
        ('{"schema_version": 1, "labels": {"a": 5}}', "not in the format of annotations"),
        ('{"schema_version": 1, "places": {"a": [1]}}', "not in the format of annotations"),
        ('{"schema_version": 1, "hidden": "a"}', "not in the format of annotations"),
        ('{"schema_version": 1, "groups": [{"name": "a", "members": "b"}]}', "not in the format"),
    ],
)
def test_files_that_are_no_annotations_are_refused(page: Page, text: str, problem: str):
    said = page.evaluate(
        """(text) => {
            try { notesInFile(viewer.graph, text, "a"); return ""; }
            catch (error) { return error.message; }
        }""",
        text,
    )
    assert problem in said


def test_annotations_that_are_saved_can_be_read_by_page_and_program(page: Page, tmp_path: Path):
    said = Annotations(
        pins=(EARLY,),
        labels={"1/7": "x"},
        groups=(graphs.Group(name="g", members=(LATE, OTHER)),),
        places={"g": (1.5, 2.0)},
        hidden=(LOGIT,),
    )
    text = page.evaluate(
        """(said) => {
            const text = annotationsText(viewer.graph, notesFrom(said));
            return annotationsText(viewer.graph, notesInFile(viewer.graph, text, "a")[0]);
        }""",
        said.model_dump(mode="json"),
    )
    (tmp_path / "a.annotations.json").write_text(text)
    assert graphs.read_annotations(tmp_path / "a.annotations.json") == said.made_of(small())
