"""`headwater intervene` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphs
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
