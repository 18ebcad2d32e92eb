"""The command that finds what stays of a graph, its file, and paraphrases that are traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import circuits
import graphs
import headwater as hw
from graphs.core.graph import AttributionGraph
from tests.graph_oracles import make_graph
from tests.test_cli import assert_refused, run
from tests.test_stability import OTHER, STRONG, WEAK, through
from viz.page.page import page_data, page_text

DALLAS = "The capital of the state containing Dallas is"
ASKED = "The capital of the home state of Dallas is"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    graphs.write_graph(through({STRONG: 0.55, WEAK: 0.45}), "graph.safetensors")
    graphs.write_graph(through({STRONG: 0.5, OTHER: 0.5}), "other.safetensors")
    return tmp_path


def read_header(path: str) -> graphs.Provenance:
    return graphs.read_graph(path).provenance


@pytest.fixture(scope="module")
def dallas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dallas") / "dallas.safetensors"
    hw.trace(DALLAS, "atlas-small").save(path)
    return path


def test_what_is_found_is_kept_with_the_graph_shown_and_read_again(here: Path):
    result = run(
        "stability",
        "graph.safetensors",
        "--paraphrase",
        "other.safetensors",
        "--out",
        "s.safetensors",
    )
    assert result.exit_code == 0, result.output
    assert "1 paraphrase" in result.stdout
    assert "graph: s.safetensors" in result.stdout
    before, after = graphs.read_graph("graph.safetensors"), graphs.read_graph("s.safetensors")
    found = after.provenance.stability
    assert found is not None
    assert found == graphs.stability(before, [graphs.read_graph("other.safetensors")])
    assert after.provenance.without_stability() == before.provenance
    shown = run("show", "s.safetensors")
    assert f"stability: {found.sentence}" in shown.stdout
    assert "stability" not in run("show", "graph.safetensors").stdout
    assert json.loads(run("show", "s.safetensors", "--json").stdout)["stability"] == found.as_json()
    again = run("prune", "s.safetensors", "--out", "pruned.safetensors")
    assert again.exit_code == 0
    assert read_header("pruned.safetensors").stability == found


def test_without_out_nothing_is_written(here: Path):
    before = {path: path.read_bytes() for path in here.iterdir()}
    assert run("stability", "graph.safetensors", "--paraphrase", "other.safetensors").exit_code == 0
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_json_has_every_node_and_edge_with_its_class(here: Path):
    result = run("stability", "graph.safetensors", "--paraphrase", "other.safetensors", "--json")
    told = json.loads(result.stdout)
    by_node = {one["node"]: one for one in told["nodes"]}
    assert by_node[STRONG]["class"] == "core"
    assert by_node[WEAK]["class"] == "noise"
    assert by_node[WEAK]["stays"]["paraphrases"] == 0
    assert by_node["token:1@0"]["class"] is None
    assert {(one["source"], one["target"]) for one in told["edges"]} >= {(WEAK, "logit:5@1")}
    assert sum(one["node_influence"] for one in told["classes"]) == pytest.approx(1.0)
    assert told["files"] == {}


def test_other_programs_formats_leave_it_out(here: Path):
    run("stability", "graph.safetensors", "--out", "s.safetensors")
    run("export", "s.safetensors", "--full", "--out", "s.json")
    assert run("show", "s.json").exit_code == 0
    assert '"sources"' not in Path("s.json").read_text().partition('"stability"')[2][:40]
    assert run("import", "s.json", "--out", "back.safetensors").exit_code == 0
    assert read_header("back.safetensors").stability is None
    assert read_header("s.safetensors").stability is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise", "0.9"], "--noise must be at most --core, 0.8, got 0.9."),
        (["--paraphrases", "none.txt"], "none.txt"),
        (["--against", "missing.safetensors"], "missing.safetensors"),
        (["--out", "graph.safetensors"], "would overwrite the input"),
        (["--node-threshold", "0.5", "--edge-threshold", "0.5"], "Nothing is varied"),
        (["--paraphrase", "A text"], "give"),
    ],
)
def test_what_cannot_be_varied_is_refused_in_one_sentence(
    here: Path, options: list[str], message: str
):
    before = sorted(here.iterdir())
    assert_refused(run("stability", "graph.safetensors", *options), message)
    assert sorted(here.iterdir()) == before


def test_a_prompt_and_its_graph_are_the_same_paraphrase(dallas: Path, tmp_path: Path):
    asked = hw.trace(ASKED, "atlas-small")
    by_graph = graphs.stability(hw.read(dallas), [asked])
    (tmp_path / "asked.txt").write_text(f"{ASKED}\n\n")
    told = run("stability", dallas, "--paraphrases", tmp_path / "asked.txt", "--json")
    assert json.loads(told.stdout)["classes"] == by_graph.as_json()["classes"]
    assert by_graph.variations[1].variants == (f"<bos> {ASKED}",)


@pytest.mark.parametrize("target", [" Austin", "logit:57@8"])
def test_a_paraphrase_is_traced_for_the_targets_that_the_graph_names(target: str):
    named = hw.trace(DALLAS, "atlas-small", target=target, max_features=50)
    model = hw.load("atlas-small")
    (found,) = circuits.trace_paraphrases(named, [ASKED], model.subject, model.source)
    expected = hw.trace(
        ASKED, "atlas-small", target=named.provenance.targets[0].text, max_features=50
    )
    assert [*found.nodes] == [*expected.nodes]
    np.testing.assert_array_equal(found.weights.data, expected.weights.data)


@pytest.mark.parametrize(
    "asked",
    [
        {"position": -2},
        {"target": "feature:2/5@7"},
        {"target": "logit:57@4"},
        {"sequence": " is a"},
    ],
)
def test_what_has_its_place_in_a_prompt_needs_graphs_of_paraphrases(asked: dict[str, Any]):
    elsewhere = hw.trace(DALLAS, "atlas-small", **asked)
    model = hw.load("atlas-small")
    with pytest.raises(hw.HeadwaterError, match="has its place in this prompt alone"):
        circuits.trace_paraphrases(elsewhere, [ASKED], model.subject, model.source)


def test_a_page_without_stability_has_none_of_it():
    graph: AttributionGraph = make_graph(
        ["token:1@0", "logit:5@1"], {("token:1@0", "logit:5@1"): 1.0}
    )
    text = page_text([(graph, graphs.NO_ANNOTATIONS)])
    assert page_data(text)["graphs"][0]["stability"] is None
