"""`headwater view`: a page of a graph, or of several."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import graphs
from headwater.cli.view import page_name
from tests.test_cli import assert_refused, run
from tests.test_viewer_numbers import layered
from viz.page.page import page_data

pytestmark = pytest.mark.usefixtures("either_system")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "one.safetensors"
    graphs.write_graph(layered(0), path)
    return path


def data_of(page: Path) -> dict:
    return page_data(page.read_text())


def test_the_page_lies_beside_the_graph_with_its_annotations(graph: Path):
    noted = graphs.Annotations(pins=("logit:7@2",))
    graphs.write_annotations(noted, graphs.annotations_path(graph))
    result = run("view", graph)
    page = graph.with_suffix(".html")
    assert result.stdout == f"page: {page}\n"
    assert data_of(page)["graphs"][0]["annotations"]["pins"] == ["logit:7@2"]
    assert run("view", graph).exit_code == 0  # our own page is made anew


def test_a_page_of_somebody_else_is_left_alone(graph: Path):
    page = graph.with_suffix(".html")
    page.write_text("<!doctype html><p>my notes</p>")
    for named in ((), ("--html", page)):
        assert_refused(run("view", graph, *named), "would overwrite a page of another program")
        assert page.read_text() == "<!doctype html><p>my notes</p>"


def test_the_page_of_another_programs_graph_is_ours_and_made_anew(graph: Path):
    traced = layered(0)
    by_others = traced.provenance.model_copy(update={"generator": "tool 1.2"})
    graphs.write_graph(replace(traced, provenance=by_others), graph)
    assert run("view", graph).exit_code == 0
    assert run("view", graph).exit_code == 0


def test_a_page_of_two_graphs_leaves_the_page_of_one_alone(graph: Path, tmp_path: Path):
    other = tmp_path / "sub" / "two.safetensors"
    other.parent.mkdir()
    graphs.write_graph(layered(1), other)
    assert run("view", graph).exit_code == 0
    alone = graph.with_suffix(".html").read_bytes()
    assert run("view", graph, other).stdout == f"page: {tmp_path / 'one-two.html'}\n"
    assert graph.with_suffix(".html").read_bytes() == alone
    assert len(data_of(tmp_path / "one-two.html")["graphs"]) == 2
    again = other.with_name("one.safetensors")
    graphs.write_graph(layered(1), again)
    assert run("view", graph, again).stdout == f"page: {tmp_path / 'one-sub.html'}\n"
    files = [one["file"]["graph"] for one in data_of(tmp_path / "one-sub.html")["graphs"]]
    assert files == [f"{tmp_path.name}/one.safetensors", "sub/one.safetensors"]
    long = [tmp_path / f"{letter * 60}.safetensors" for letter in "abc"]
    assert page_name(long) == f"{'a' * 60}-and-2-more"


def test_two_graphs_go_into_one_page(graph: Path, tmp_path: Path):
    other = tmp_path / "two.safetensors"
    graphs.write_graph(layered(1), other)
    result = run("view", graph, other, "--html", tmp_path / "pair.html", "--json")
    assert json.loads(result.stdout) == {"page": str(tmp_path / "pair.html")}
    data = data_of(tmp_path / "pair.html")
    assert len(data["graphs"]) == len(data["pairs"][0]["sides"]) == 2


def test_several_graphs_go_into_one_page_and_each_two_are_matched(graph: Path, tmp_path: Path):
    others = [tmp_path / f"{seed}.safetensors" for seed in range(1, 9)]
    for seed, path in enumerate(others, 1):
        graphs.write_graph(layered(seed), path)
    page = tmp_path / "page.html"
    assert_refused(run("view", graph, *others, "--html", page), "holds at most 8 graphs, got 9")
    assert not page.exists()
    assert_refused(run("view", graph, others[0], "--html", others[0]), "give --out another name")
    assert run("view", graph, *others[:2], "--html", page).exit_code == 0
    data = data_of(page)
    assert [len(one["tokens"]) for one in data["graphs"]] == [3, 3, 3]
    assert [pair["of"] for pair in data["pairs"]] == [[0, 1], [0, 2], [1, 2]]


def test_the_page_holds_as_many_nodes_as_are_asked_for(graph: Path):
    assert run("view", graph, "--nodes", "10").exit_code == 0
    assert len(data_of(graph.with_suffix(".html"))["graphs"][0]["nodes"]["names"]) == 10
    for number in ("0", "10001"):
        assert run("view", graph, "--nodes", number).exit_code == 2


def test_what_cannot_be_shown_is_refused_and_nothing_written(graph: Path, tmp_path: Path):
    before = sorted(tmp_path.iterdir())
    assert_refused(run("view", tmp_path / "none.safetensors"), "none.safetensors")
    assert_refused(run("view", graph, "--html", tmp_path / "no" / "a.html"), "There is no folder")
    assert_refused(run("view", graph, "--html", graph), "would overwrite the input")
    assert_refused(run("view", graph, tmp_path / "none.json"), "none.json")
    assert sorted(tmp_path.iterdir()) == before
