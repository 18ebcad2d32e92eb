"""A person's labels belong to the features of a dictionary, on the pages of all its prompts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import graphs
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.provenance import NEURONS, UNKNOWN
from tests.browser import needs_chromium, visit
from tests.test_viewer import EARLY, LATE, settle, small, until
from viz.page.page import write_page
from viz.page.part import part
from viz.page.payload import graph_data, placed


def of_dictionary(graph: AttributionGraph, model: str | None = None, **changes) -> AttributionGraph:
    header = graph.provenance
    update: dict = {"dictionary": header.dictionary.model_copy(update=changes)}
    if model:
        update["model"] = header.model.model_copy(update={"name": model})
    return replace(graph, provenance=header.model_copy(update=update))


def other_prompt() -> AttributionGraph:
    graph = small()
    tokens = ("<bos>", " Austin", " was")
    return replace(graph, provenance=graph.provenance.model_copy(update={"tokens": tokens}))


def test_graphs_share_labels_where_their_features_are_the_same():
    def key(graph: AttributionGraph) -> str | None:
        held = part(graph)
        return graph_data(held, placed(held))["dictionary"]

    one = small()
    assert key(one) == key(other_prompt())
    assert key(one) == key(of_dictionary(one, model="a chat model"))
    assert key(one) != key(of_dictionary(one, name="another"))
    assert key(one) != key(of_dictionary(one, revision=None))
    assert key(of_dictionary(one, name=UNKNOWN)) is None
    neurons = [of_dictionary(one, model=model, kind=NEURONS) for model in ("a", "b")]
    assert key(neurons[0]) != key(neurons[1])


def opened(page: Page, graph: AttributionGraph, path: Path, said: Annotations = NO_ANNOTATIONS):
    write_page(graph, path, said)
    visit(page, path)
    page.wait_for_selector("html[data-ready]")
    page.evaluate(f"viewer.dispatch({{type: 'click', node: '{LATE}', stay: true}})")
    settle(page)


def label(page: Page, text: str) -> None:
    page.locator('[data-key="label"]').fill(text)
    page.locator('[data-key="label"]').press("Enter")
    settle(page)


def shown(page: Page) -> tuple[str, str]:
    """The label of the clicked node, and what is said of where it comes from."""
    settle(page)
    said = page.locator(".label small").all_inner_texts()
    return page.locator('[data-key="label"]').input_value(), " | ".join(said)


@needs_chromium
def test_a_label_is_used_on_the_page_of_another_prompt_and_says_where_it_is_from(
    page: Page, tmp_path: Path
):
    opened(page, small(), tmp_path / "one.html")
    label(page, "the state")
    assert shown(page) == ("the state", "in the file: Texas")
    opened(page, other_prompt(), tmp_path / "two.html")
    elsewhere = "your label of this feature, from another prompt Forget | in the file: Texas"
    assert shown(page) == ("the state", elsewhere)
    assert page.evaluate("viewer.notes.labels") == {}
    assert page.evaluate("viewer.scene(0).markOf(viewer.clicked())") == "the state"
    page.locator('[data-key="search"]').fill("the state")
    expect(page.locator(".found")).to_contain_text("1 found")
    opened(page, of_dictionary(small(), name="another"), tmp_path / "three.html")
    assert shown(page) == ("Texas", "")


@needs_chromium
def test_this_graphs_own_comes_before_the_files_before_mine_before_the_descriptions(
    page: Page, tmp_path: Path
):
    opened(page, small(), tmp_path / "one.html")
    label(page, "mine")
    filed = Annotations(labels={"1/7": "the file's"})
    opened(page, other_prompt(), tmp_path / "two.html", filed)
    file = "from the annotations in the file | in the file: Texas"
    assert shown(page) == ("the file's", file)
    page.evaluate(f"viewer.dispatch({{type: 'label', key: '{LATE}', text: 'own'}})")
    assert shown(page) == ("own", "in the file: Texas")
    page.keyboard.press("u")
    assert shown(page) == ("the file's", file)
    label(page, "")
    assert shown(page)[0] == "mine"
    label(page, "")
    assert shown(page) == ("Texas", "")


@needs_chromium
def test_labels_of_a_feature_are_undone_and_forgotten_everywhere(page: Page, tmp_path: Path):
    def stored() -> list[str]:
        return page.evaluate("Object.values(storedLabels(viewer.graph.dictionary))")

    opened(page, small(), tmp_path / "one.html")
    label(page, "first")
    label(page, "second")
    page.locator(".plot").focus()
    page.keyboard.press("u")
    assert (shown(page)[0], stored()) == ("first", ["first"])
    page.keyboard.press("u")
    assert (shown(page)[0], stored()) == ("Texas", [])
    page.keyboard.press("r")
    assert (shown(page)[0], stored()) == ("first", ["first"])
    opened(page, other_prompt(), tmp_path / "two.html")
    page.locator('[data-key="forget"]').click()
    assert (shown(page), stored()) == (("Texas", ""), [])
    page.keyboard.press("u")
    assert (shown(page)[0], stored()) == ("first", ["first"])


@needs_chromium
def test_taking_away_a_label_of_this_graph_alone_leaves_the_one_for_all_prompts(
    page: Page, tmp_path: Path
):
    opened(page, small(), tmp_path / "one.html")
    label(page, "for all")
    opened(page, other_prompt(), tmp_path / "two.html")
    page.evaluate(f"viewer.dispatch({{type: 'label', key: '{LATE}', text: 'here'}})")
    settle(page)
    label(page, "")
    assert shown(page)[0] == "for all"


@needs_chromium
def test_saving_writes_what_is_shown_as_mine(page: Page, tmp_path: Path):
    opened(page, small(), tmp_path / "one.html")
    label(page, "mine")
    page.evaluate(
        "viewer.dispatch({type: 'label', key: 'feature:3/3@1', text: 'not in this graph', "
        "dictionary: viewer.graph.dictionary, feature: '3/3'})"
    )
    opened(page, other_prompt(), tmp_path / "two.html")
    page.evaluate(f"viewer.dispatch({{type: 'label', key: '{EARLY}', text: 'city'}})")
    hash_of = "JSON.parse(JSON.stringify(sharedState(sharedHash(viewer.graphs, viewer.state))))"
    assert page.evaluate(hash_of)["notes"][0]["labels"] == {EARLY: "city", "1/7": "mine"}
    with page.expect_download() as saved:
        page.locator('[data-key="Save"]').click()
    saved.value.save_as(tmp_path / "a.annotations.json")
    said = graphs.read_annotations(tmp_path / "a.annotations.json")
    assert said.labels == {EARLY: "city", "1/7": "mine"}
    page.wait_for_timeout(350)
    opened(page, other_prompt(), tmp_path / "two.html", said)
    assert shown(page)[0] == "mine"
    expect(page.locator("#filed")).to_be_hidden()  # what is saved is what the browser keeps


@needs_chromium
def test_pages_that_are_open_learn_labels_and_do_not_undo_them(page: Page, tmp_path: Path):
    opened(page, small(), tmp_path / "one.html")
    other = page.context.new_page()
    opened(other, other_prompt(), tmp_path / "two.html")
    page.evaluate(f"viewer.dispatch({{type: 'click', node: '{EARLY}'}})")
    label(page, "city")
    label(other, "state")
    until(page, "viewer.labelled().labels['1/7'] === 'state'")
    until(other, "viewer.labelled().labels['0/5'] === 'city'")
    page.locator(".plot").focus()
    page.keyboard.press("u")
    settle(page)
    labels = json.loads(
        page.evaluate("localStorage.getItem(dictionaryKey(viewer.graph.dictionary))")
    )
    assert labels == {"1/7": "state"}


@needs_chromium
@pytest.mark.parametrize("stored", ["{", "3", "null", '{"1/7": 5, "x": "y"}'])
def test_labels_that_make_no_sense_are_left_aside(page: Page, tmp_path: Path, stored: str):
    opened(page, small(), tmp_path / "one.html")
    page.evaluate(
        "(text) => localStorage.setItem(dictionaryKey(viewer.graph.dictionary), text)", stored
    )
    opened(page, small(), tmp_path / "one.html")
    assert shown(page) == ("Texas", "")
    assert page.evaluate("viewer.state.mine[viewer.graph.dictionary]") == {}
