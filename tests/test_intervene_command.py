"""`headwater intervene` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphs
import headwater as hw
from tests.test_cli import assert_refused, run

PROMPT = "The capital of the state containing {} is"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of Dallas and of Oakland."""
    made = tmp_path_factory.mktemp("graphs")
    for city in ("Dallas", "Oakland"):
        out = made / f"{city}.safetensors"
        told = run("trace", PROMPT.format(city), "--model", "atlas-small", "--out", out)
        assert told.exit_code == 0, told.output
    return made


def told(*arguments: object) -> dict:
    result = run("intervene", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_with_everything_held_predicted_is_measured(folder: Path):
    asked = ("--scale", "concept:Texas=0", "--regime", "frozen")
    (one,) = told(folder / "Dallas.safetensors", *asked)["interventions"]
    assert one["what"] == "concept:Texas × 0"
    assert one["regime"] == "frozen"
    for target in one["targets"]:
        # Rows keep 99.9 % of their absolute sum as edges; the rest is not in the prediction.
        assert target["predicted"] == pytest.approx(target["measured"], abs=1e-2)
        assert target["measured"] < -1


def test_the_answer_is_swapped_for_that_of_another_state(folder: Path):
    swap = ("--swap", "Texas>California", "--with", folder / "Oakland.safetensors")
    asked = (folder / "Dallas.safetensors", *swap, "--regime", "free", "--generate", "1")
    found = told(*asked)
    assert found["interventions"][0]["tokens"][0]["text"].strip() == "Sacramento"
    assert found["generated"] == {"before": "Austin", "after": "Sacramento"}
    text = run("intervene", *asked).stdout
    assert "Texas > California  (free)" in text
    assert "Sacramento" in text


def test_a_patched_head_comes_from_the_other_graph(folder: Path):
    swap = ("--swap", "head:0.1>head:0.1", "--with", folder / "Oakland.safetensors")
    (one,) = told(folder / "Dallas.safetensors", *swap, "--regime", "free")["interventions"]
    assert one["edited"] == [{"node": "head:0.1", "text": "", "before": 1.0, "after": None}]
    assert all(target["predicted"] is None for target in one["targets"])
    text = run("intervene", folder / "Dallas.safetensors", *swap).stdout
    assert "head:0.1  1.000  patched" in text
    assert "no prediction: the graph holds attention patterns" in text


def test_rows_of_patterns_are_shown_before_after_and_as_predicted(folder: Path):
    asked = ("--scale", "concept:Texas=0", "--only-queries", "2.1,3.0", "--attention", "3.0@is")
    (one,) = told(folder / "Dallas.safetensors", *asked)["interventions"]
    assert one["what"] == "concept:Texas × 0, only through the queries of 2.1, 3.0"
    assert one["only"] == "the queries of 2.1, 3.0"
    (pattern,) = one["patterns"]
    assert (pattern["layer"], pattern["head"], pattern["query"]) == (3, 0, 8)
    for name in ("before", "after"):
        assert sum(key[name] for key in pattern["keys"]) == pytest.approx(1, abs=1e-5)
    for key in pattern["keys"]:
        assert key["measured"] == pytest.approx(np.log(key["after"] / key["before"]))
    text = run("intervene", folder / "Dallas.safetensors", *asked).stdout
    assert "only the queries of 2.1, 3.0 change, and what follows from that" in text
    assert "head 3.0 from “ is” @8, what it attends to" in text.translate({0x2068: "", 0x2069: ""})


def test_python_does_what_the_command_does(folder: Path):
    graph = folder / "Dallas.safetensors"
    found = hw.intervene(
        graph,
        hw.Scale("head:1.1@is<Dallas", 0.0),
        run_patterns="2.0,2.1",
        attention=["2.1@is"],
        model="atlas-small",
    )
    arguments = ("--scale", "head:1.1@is<Dallas=0", "--run-patterns", "2.0,2.1")
    (one,) = told(graph, *arguments, "--attention", "2.1@is")["interventions"]
    assert found.what == one["what"] == "head:1.1@is<Dallas × 0, patterns of 2.0, 2.1 run"
    assert found.targets[0].measured == pytest.approx(one["targets"][0]["measured"])
    assert found.patterns[0].keys[0].after == pytest.approx(one["patterns"][0]["keys"][0]["after"])


def test_each_edit_can_be_an_intervention_of_its_own_and_is_kept(folder: Path, tmp_path: Path):
    path = tmp_path / "kept.safetensors"
    path.write_bytes((folder / "Dallas.safetensors").read_bytes())
    graph = graphs.read_graph(path)
    features = np.flatnonzero(graph.nodes.is_kind(graphs.NodeKind.FEATURE))[:3].tolist()
    edits = [part for row in features for part in ("--set", f"{graph.nodes[row]}=0")]
    found = told(path, *edits, "--each", "--save")
    assert len(found["interventions"]) == 3
    assert found["file"] == str(path)
    kept = graphs.read_graph(path).provenance.measured
    assert {one.what for one in kept} == {f"{graph.nodes[row]} to 0" for row in features}
    told(path, *edits, "--each", "--save")
    assert len(graphs.read_graph(path).provenance.measured) == len(kept)


def test_a_vector_of_another_width_is_refused(folder: Path, tmp_path: Path):
    np.save(tmp_path / "short.npy", np.ones(3))
    graph = folder / "Dallas.safetensors"
    assert_refused(
        run("intervene", graph, "--steer", f"1@7:{tmp_path / 'short.npy'}=2"),
        "A steering vector has shape (3,), the residual stream has",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "There is no edit: give --set"),
        (("--set", "feature:0/1@7"), "--set expects NODES=NUMBER"),
        (("--scale", "=2"), "--scale expects NODES=NUMBER"),
        (("--add", "feature:0/1@7=much"), "--add expects NODES=NUMBER"),
        (("--set", "feature:0/1@7=nan"), "contains a number that is not finite"),
        (("--set", "feature:0/1@99=0"), "choose one of 1 to 8"),
        (("--set", "feature:0/999999@7=0"), "is out of range: layer 0 has"),
        (("--set", "feature:99/1@7=0"), "in a layer that the model does not have"),
        (("--set", "concept:Atlantis=0"), "No feature of this graph has a label"),
        (("--set", "supernode:mine=0"), "There is no group 'mine'"),
        (("--set", "token: Dallas=0"), "cannot be edited"),
        (("--set", "concept:Texas=0", "--scale", "concept:Texas=2"), "is edited twice"),
        (("--steer", "1@7=2"), "--steer expects LAYER@POS:FILE.npy=NUMBER"),
        (("--steer", "1@7:none.npy=2"), "none.npy"),
        (("--swap", "Texas>California"), "--swap needs --with"),
        (("--set", "concept:Texas=0", "--through", "99"), "There is no block 99"),
        (("--set", "concept:Texas=0", "--through", "1", "--regime", "free"), "needs the const"),
        (("--set", "concept:Texas=0", "--each", "--generate", "2"), "leave out --each"),
        (("--set", "concept:Texas=1e39", "--json"), "use smaller values"),
        (("--set", "concept:Texas=1e39", "--save"), "use smaller values"),
        (("--set", "concept:Texas=0", "--model", "atlas-large"), "layers"),
        (("--set", "concept:Texas=0", "--transcoders", "nowhere"), "nowhere"),
        (("--scale", "head:=0"), "A head is LAYER.HEAD, as in 4.5, got ''"),
        (("--scale", "head:4.5.6=0"), "A head is LAYER.HEAD"),
        (("--scale", "head:1.99=0"), "There is no head 1.99: layer 1 has heads 0 to"),
        (("--scale", "head:99.1=0"), "There is no layer 99"),
        (("--scale", "head:1.1@The<is=0"), "looks ahead"),
        (("--scale", "head:1.1@is<=0"), "is half an entry"),
        (("--set", "head:1.1=0"), "has no activation"),
        (("--scale", "head:1.1=0", "--only-keys", "1.1,"), "A head is LAYER.HEAD"),
        (("--scale", "head:1.1=0", "--only-keys", "1.99"), "There is no head 1.99"),
        (("--scale", "head:1.1=0", "--only-keys", "2.1", "--generate", "1"), "New tokens are"),
        (("--scale", "head:1.1=0", "--run-patterns", "1.1", "--regime", "free"), "holds patterns"),
        (("--scale", "head:1.1=0", "--attention", "1.1@8<2"), "A row of a pattern is HEAD@QUERY"),
        (("--scale", "head:1.1=0", "--attention", "1.99"), "There is no head 1.99"),
        (("--scale", "head:1.1=0", "--attention", "1.1@\n"), "No token is"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    folder: Path, arguments: tuple[str, ...], sentence: str
):
    assert_refused(run("intervene", folder / "Dallas.safetensors", *arguments), sentence)


@pytest.mark.parametrize("name", ["graph.json", "renamed.safetensors"])
def test_nothing_is_written_to_a_file_of_another_program(
    model_folder: Path, tmp_path: Path, name: str
):
    path, exported = tmp_path / name, tmp_path / "graph.json"
    traced = tmp_path / "traced.safetensors"
    assert run("trace", "fjfoi", "--model", model_folder, "--out", traced).exit_code == 0
    assert run("export", traced, "--out", exported).exit_code == 0
    exported.rename(path)
    before = path.read_bytes()
    assert_refused(
        run("intervene", path, "--scale", "layer:1=0", "--save"),
        "is another program's file",
    )
    result = run("check", path, "--features", "2", "--random-sets", "2")
    assert f"{path} is another program's file: the report is not stored in it." in result.stdout
    assert path.read_bytes() == before
