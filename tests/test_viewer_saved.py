"""What a page saves and loads: it is found again, is of this graph, and what fails is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import graphs
from graphs.core.annotations import NO_ANNOTATIONS, Annotations, graph_digest
from headwater.opened import open_graph
from tests.browser import needs_chromium, visit
from tests.test_cli import assert_refused, run
from tests.test_viewer import EARLY, LATE, LOGIT, settle, small
from tests.test_viewer_numbers import layered
from viz.page.page import write_page, write_pages

pytestmark = needs_chromium

ELSEWHERE = "feature:9/9@1"


def shown(page: Page, path: Path, state: str = "") -> Page:
    visit(page, path, state)
    page.wait_for_selector("html[data-ready]")
    return page


def save(page: Page, folder: Path) -> Path:
    with page.expect_download() as saved:
        page.locator('[data-key="Save"]').click()
    path = folder / saved.value.suggested_filename
    saved.value.save_as(path)
    return path


def pin(page: Page, name: str, graph: int = 0) -> None:
    page.evaluate(f"viewer.dispatch({{type: 'pin', node: '{name}', graph: {graph}}})")
    settle(page)


def test_what_a_page_saves_is_read_by_the_commands_under_the_name_it_gets(
    page: Page, tmp_path: Path
):
    graph = tmp_path / "my.graph.safetensors"
    graphs.write_graph(layered(0), graph)
    assert run("view", graph).exit_code == 0
    shown(page, tmp_path / "my.graph.html")
    pin(page, "logit:7@2")
    assert save(page, tmp_path) == graphs.annotations_path(graph)
    expect(page.locator("#status")).to_contain_text("Put it beside my.graph.safetensors")
    read = open_graph(graph)
    assert read.annotations == Annotations(pins=("logit:7@2",)).made_of(layered(0))
    assert read.remarks == ()


def test_a_page_of_an_unknown_file_says_that_the_name_is_the_prompts(page: Page, tmp_path: Path):
    names: list[str] = []
    for number, graph in enumerate((small(), layered(1))):
        write_page(graph, tmp_path / f"{number}.html")
        shown(page, tmp_path / f"{number}.html")
        names.append(save(page, tmp_path).name)
        expect(page.locator("#status")).to_contain_text("does not know the file of its graph")
        assert graph_digest(graph)[:6] in names[-1]
    assert len(set(names)) == 2


def test_graphs_of_one_name_are_told_apart_by_their_folders(page: Page, tmp_path: Path):
    shown_graphs = [(small(), NO_ANNOTATIONS), (layered(1), NO_ANNOTATIONS)]
    files = [tmp_path / side / "a.safetensors" for side in ("one", "two")]
    write_pages(shown_graphs, tmp_path / "p.html", files=files)
    shown(page, tmp_path / "p.html")
    page.evaluate("viewer.dispatch({type: 'set', view: {active: 1}})")
    assert save(page, tmp_path).name == "a.annotations.json"
    expect(page.locator("#status")).to_contain_text("beside two/a.safetensors")


def test_loading_notes_of_another_graph_says_so_and_what_is_missing(page: Page, tmp_path: Path):
    write_page(small(), tmp_path / "p.html")
    shown(page, tmp_path / "p.html")
    status, file = page.locator("#status"), tmp_path / "n.annotations.json"

    def load(notes: Annotations) -> list[str]:
        graphs.write_annotations(notes, file)
        page.locator("#file").set_input_files(file)
        expect(status).to_contain_text("n.annotations.json")
        return page.evaluate("viewer.notes.pins")

    here = Annotations(pins=(EARLY, LATE), labels={"9/9": "elsewhere"})
    assert load(here) == [EARLY, LATE]
    expect(status).to_contain_text("; 1 of its 3 nodes and features is not in this graph.")
    assert load(here.model_copy(update={"digest": "other"})) == [EARLY, LATE]
    expect(status).to_contain_text("is of another graph: 1 of its 3 nodes and features is not in")
    foreign = Annotations(pins=(ELSEWHERE, "feature:9/8@1"), digest="other")
    assert load(foreign) == [EARLY, LATE]  # nothing of it fits: the person's own stay
    expect(status).to_contain_text("none of its 2 nodes and features is in this graph. It was not")
    assert load(Annotations(digest="other")) == []


def test_commands_say_that_annotations_are_of_another_graph(tmp_path: Path):
    graph = tmp_path / "a.safetensors"
    graphs.write_graph(layered(0), graph)
    beside = graphs.annotations_path(graph)
    graphs.write_annotations(Annotations(pins=("logit:7@2", ELSEWHERE), digest="other"), beside)
    said = run("show", graph)
    assert said.exit_code == 0
    assert said.stderr.count("a.annotations.json was made of another graph") == 1
    assert "of the 2 nodes and features in it, 1 are not in this one" in " ".join(
        said.stderr.split()
    )
    graphs.write_annotations(Annotations(pins=(ELSEWHERE,), digest="other"), beside)
    assert_refused(run("show", graph), "none of the nodes and features in it (1) is in this one")
    elsewhere = Annotations(pins=(ELSEWHERE,))  # as of a pruned graph
    for fitting in (elsewhere, elsewhere.made_of(layered(0))):
        graphs.write_annotations(fitting, beside)
        assert run("show", graph).stderr == ""


def test_pruned_graphs_and_their_wholes_share_annotations_and_programs_write_the_digest(
    tmp_path: Path,
):
    graph, part = tmp_path / "a.safetensors", tmp_path / "part.safetensors"
    graphs.write_graph(layered(0), graph)
    assert run("group", graph, "--tightness", "0", "--save").exit_code == 0
    assert open_graph(graph).annotations.digest == graph_digest(layered(0))
    assert run("prune", graph, "--out", part).exit_code == 0
    assert open_graph(part).annotations == open_graph(graph).annotations
    assert graph_digest(open_graph(part).graph) == graph_digest(layered(0))
    assert graph_digest(small()) != graph_digest(layered(0))


@pytest.mark.parametrize("name", ["QuotaExceededError", "SecurityError"])
def test_storage_that_is_full_or_off_is_said_once(page: Page, tmp_path: Path, name: str):
    write_page(small(), tmp_path / "p.html")
    page.add_init_script(
        f"Storage.prototype.setItem = () => {{ throw new DOMException('', '{name}') }}"
    )
    shown(page, tmp_path / "p.html")
    line = page.locator("#filed .problem")
    expect(line).to_have_count(0)
    for node in (EARLY, LATE):
        pin(page, node)
        page.wait_for_timeout(300)
    expect(line).to_have_count(1)
    said = "has no room left to store" if name.startswith("Quota") else "does not store"
    expect(line).to_contain_text(f"This browser {said} your annotations")
    line.get_by_role("button", name="Dismiss").click()
    pin(page, LOGIT)
    page.wait_for_timeout(300)
    expect(page.locator("#filed")).to_be_hidden()


def test_what_cannot_be_restored_is_named(page: Page, tmp_path: Path):
    write_page(small(), tmp_path / "p.html")
    line = page.locator("#filed .problem")
    shown(page, tmp_path / "p.html", "#s=%%%")
    expect(line).to_contain_text("The state in this address cannot be read")
    told = {"view": {"nodes": 7, "constructor": 1, "edges": 0.5}, "notes": [{"pins": [3]}]}
    state = page.evaluate("(told) => btoa(JSON.stringify(told))", told).rstrip("=")
    page.goto("about:blank")
    shown(page, tmp_path / "p.html", f"#s={state}")
    expect(line).to_have_text(
        "The address holds what this page cannot restore: “nodes”, “constructor” and annotations. "
        "The rest is restored.Dismiss"
    )
    assert page.evaluate("viewer.view.edges") == 0.5
    key = page.evaluate("storageKey(viewer.graphs)")
    for stored, said in (
        ("{", "What was stored of this page in this browser cannot be read and is left out."),
        (json.dumps({"view": {"tab": 5}}), "What was stored of this page holds what this page"),
    ):
        page.evaluate("([key, stored]) => localStorage.setItem(key, stored)", [key, stored])
        page.goto("about:blank")
        shown(page, tmp_path / "p.html")
        expect(line).to_have_count(1)
        expect(line).to_contain_text(said)
