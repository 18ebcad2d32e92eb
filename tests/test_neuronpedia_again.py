"""An import and an export of another program's file are the identity, until the graph changes."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import graphs
from graphs.analysis.prune import PruneSettings, cumulative_influence, prune
from graphs.core.annotations import Annotations, Group
from graphs.core.imported import Imported
from graphs.disk.files import GraphFileError
from graphs.formats.neuronpedia.reader import read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia, write_neuronpedia
from graphs.formats.storage import read_graph, write_graph
from tests.graph_oracles import random_graphs
from tests.same_graph import assert_same_graph
from tests.test_cli import assert_refused, run
from tests.test_neuronpedia import GRAPH, SCHEMA
from tests.test_neuronpedia_counting import PLAIN, file_of, openmoss_file
from tests.test_neuronpedia_reader import anthropic_file, circuit_tracer_file
from tests.test_neuronpedia_targets import GONE, UNKNOWN, file_with, weights

SCHEMA_1 = Path(__file__).with_name("data") / "schema_1"


def neuronpedia_file() -> dict[str, Any]:
    """Much that we read and do not understand, and links that lead nowhere."""
    file = circuit_tracer_file()
    del file["metadata"]["schema_version"]
    file["metadata"] |= {
        "info": {"creator_name": "A", "generator": {"name": "g", "url": "u"}, "create_time_ms": 1},
        "feature_details": {"neuronpedia_source_set": "gemmascope-transcoder-16k"},
        "generation_settings": {"max_n_logits": 10, "desired_logit_prob": 0.95},
        "pruning_settings": {"node_threshold": 0.8, "edge_threshold": 0.85},
        "later": {"deep": [1, None, "x"]},
    }
    file["qParams"] = {
        "pinnedIds": ["0_77_1", "gone"],
        "supernodes": [["greeting", "0_77_1", "3_77_1"], ["again", "0_77_1"]],
        "clerps": [["0_3080_1", "here"], ["nobody", "?"]],
        "linkType": "either",
        "clickedId": "0_77_1",
        "sg_pos": "1 2 3 4",
        "densityThreshold": 0.9,
    }
    file["nodes"][0] |= {"influence": 0.25, "vis_link": "https://x", "run_idx": 3}
    file["nodes"][3]["qk_tracing_results"] = {"pair_wise_contributors": [["a", "b", 0.5]]}
    file["links"].insert(0, {"source": "gone", "target": "3_77_1", "weight": 0.1})
    file["links"].insert(3, {"source": "3_77_1", "target": "gone", "weight": -0.2})
    file["qk_only_nodes"] = {"q": {"node_id": "q", "clerp": ""}}
    return file


def sparse_file() -> dict[str, Any]:
    """No more than is demanded, and null where much would be."""
    file = circuit_tracer_file()
    file["metadata"] = {"prompt_tokens": ["<bos>", "Hi"], "scan": None}
    del file["qParams"]
    keys = ("node_id", "layer", "ctx_idx", "feature_type", "clerp")
    file["nodes"] = [{key: member[key] for key in keys} for member in file["nodes"]]
    file["nodes"][6]["layer"] = None
    return file


FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "anthropic": anthropic_file,
    "circuit-tracer": circuit_tracer_file,
    "made targets": lambda: weights(1.7, -0.5),
    "neuronpedia": neuronpedia_file,
    "openmoss": openmoss_file,
    "ours of schema 1": lambda: json.loads((SCHEMA_1 / "graph.json").read_bytes()),
    "plain numbers": lambda: file_of(PLAIN),
    "sparse": sparse_file,
    "unknown probabilities": lambda: file_with(*UNKNOWN, {"token_prob": GONE, "token": "c"}),
}


def assert_same_file(written: Path, file: dict[str, Any]) -> None:
    """But for our own key."""
    content = json.loads(written.read_text())
    assert content.pop("headwater")
    assert content == {key: value for key, value in file.items() if key != "headwater"}


@pytest.mark.parametrize("name", FILES)
def test_an_import_and_an_export_give_the_file_back(tmp_path, name: str):
    theirs, ours, back = (tmp_path / name for name in ("a.json", "b.safetensors", "c.json"))
    theirs.write_text(json.dumps(FILES[name]()))
    assert run("import", theirs, "--out", ours).exit_code == 0
    for source in (ours, theirs):
        exported = run("export", source, "--full", "--out", back)
        assert exported.exit_code == 0, exported.output
        assert_same_file(back, FILES[name]())
    first, second = read_neuronpedia(theirs), read_neuronpedia(back)
    assert_same_graph(second.graph, first.graph)
    assert second.annotations == first.annotations


@given(random_graphs(), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_file_in_any_order_with_anything_beside_is_given_back(graph, chance, with_our_key):
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours, back = (Path(folder, name) for name in ("a.json", "b", "c.json"))
        file = json.loads(json.dumps(to_neuronpedia(graph, Upload("a", scan="s"))))
        if not with_our_key:
            del file["headwater"]
            disturb(file, chance)
        theirs.write_text(json.dumps(file))
        read = read_neuronpedia(theirs)
        write_graph(read.graph, ours)
        write_neuronpedia(read_graph(ours), back, Upload(), read.annotations)
        assert_same_file(back, file)
        again = read_neuronpedia(back)
        assert_same_graph(again.graph, read.graph)
        assert again.annotations == read.annotations


def disturb(file: dict[str, Any], chance: random.Random) -> None:
    """Another order, keys that nobody knows, and some left out."""
    chance.shuffle(file["links"])
    chance.shuffle(file["nodes"])
    for member in (file, file["metadata"], file["qParams"], *file["nodes"]):
        if chance.random() < 0.3:
            member[f"later {chance.random()}"] = chance.choice([None, 1, 0.1, "x", {"a": [2]}])
    for member in file["nodes"]:
        for key in ("run_idx", "influence", "jsNodeId", "activation", "is_target_logit"):
            if chance.random() < 0.2:
                del member[key]


def test_influence_is_that_of_the_whole_graph_from_which_the_file_was_cut(tmp_path):
    """Of a part it would be another, and the viewer's slider would hide most of it."""
    whole = read_graph(SCHEMA_1 / "graph.safetensors")
    part, out = prune(whole), tmp_path / "a.json"
    write_neuronpedia(part, out, Upload("a", node_threshold=0.8), whole=whole)
    back = tmp_path / "b.json"
    write_neuronpedia(read_neuronpedia(out).graph, back, Upload())
    files = [json.loads(path.read_text()) for path in (out, back)]
    shown = [
        [n["influence"] for n in file["nodes"] if (n["influence"] or 1) <= 0.8] for file in files
    ]
    assert len(shown[0]) > 20
    assert shown[1] == shown[0]
    assert files[1]["metadata"]["node_threshold"] == files[0]["metadata"]["node_threshold"]
    alone = cumulative_influence(part)
    assert np.count_nonzero(alone <= 0.8) < len(shown[0])


def test_a_graph_that_was_pruned_again_has_values_of_its_own(tmp_path):
    path, out = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(json.dumps(neuronpedia_file()))
    exported = run("export", path, "--node-threshold", "0.5", "--out", out)
    assert exported.exit_code == 0, exported.output
    whole = read_neuronpedia(path).graph
    part = prune(whole, PruneSettings(0.5))
    assert part.imported is None
    file = json.loads(out.read_text())
    by_name = {
        str(node): value
        for node, value in zip(whole.nodes, cumulative_influence(whole), strict=True)
    }
    told = [n["influence"] for n in file["nodes"] if n["feature_type"] != "logit"]
    assert told == [by_name[str(n)] for n in part.nodes if n.kind.word != "logit"]
    about, before = file["metadata"], neuronpedia_file()["metadata"]
    assert about["pruning_settings"]["hidden_nodes"] == len(whole) - len(part) > 0
    assert about["pruning_settings"]["node_threshold"] == 0.5
    for kept in ("scan", "later", "feature_details", "generation_settings"):
        assert about[kept] == before[kept]
    assert about["info"] == about["info"] | before["info"]
    assert (about["slug"], about["schema_version"]) == ("b", 1)
    jsonschema.validate(file, SCHEMA)


def test_a_pruning_that_takes_nothing_away_changes_nothing(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(circuit_tracer_file()))
    graph = read_neuronpedia(path).graph
    assert graph.take(np.arange(len(graph))).imported is graph.imported is not None
    assert graph.take(np.arange(1, len(graph))).imported is None
    assert graph.with_weights(graph.weights * 0).imported is graph.imported  # zeros are edges too


def test_what_people_say_since_is_written_in_the_words_of_the_file(tmp_path):
    path, ours, out = (tmp_path / name for name in ("a.json", "b.safetensors", "c.json"))
    file = anthropic_file()
    file["nodes"][2]["feature"] = file["nodes"][1]["feature"] = 77
    path.write_text(json.dumps(file))
    assert run("import", path, "--out", ours).exit_code == 0
    notes = Annotations(
        pins=("feature:5/77@2",),
        labels={"5/77": "state", "logit:18142@2": "the answer", "token:26865@1": "city"},
        groups=(Group(name="both", members=("feature:5/77@1", "feature:5/77@2"), automatic=True),),
    )
    graphs.write_annotations(notes, graphs.annotations_path(ours))
    assert run("export", ours, "--full", "--out", out).exit_code == 0
    back = json.loads(out.read_text())
    assert back["qParams"] == {
        "pinnedIds": ["q2"],
        "supernodes": [["both", "q1", "q2"]],
        "clerps": [["77", "state"], ["E1_18142_2", "the answer"], ["E_26865_1", "city"]],
        "clickedId": None,
        "linkType": "either",
        "sg_pos": "1 2",
    }
    said = [member["clerp"] for member in back["nodes"]]
    assert said == ["city", "state", "state", "say a capital", "output: 'Austin' (p=0.750)"]
    assert back["links"] == file["links"]
    assert read_neuronpedia(out).annotations == notes


def test_what_was_said_in_the_file_stands_until_somebody_says_otherwise(tmp_path):
    path, ours, out = (tmp_path / name for name in ("a.json", "b.safetensors", "c.json"))
    path.write_text(json.dumps(anthropic_file()))
    assert run("import", path, "--out", ours).exit_code == 0
    beside = graphs.annotations_path(ours)
    beside.unlink()
    assert run("export", ours, "--full", "--out", out).exit_code == 0
    assert json.loads(out.read_text())["qParams"] == anthropic_file()["qParams"]
    graphs.write_annotations(Annotations(), beside)
    assert run("export", ours, "--full", "--out", out).exit_code == 0
    said = json.loads(out.read_text())["qParams"]
    assert (said["pinnedIds"], said["supernodes"], said["sg_pos"]) == ([], [], "1 2")


def test_a_slug_or_scan_or_threshold_that_is_given_is_new(tmp_path):
    path, out = tmp_path / "a.json", tmp_path / "b.json"
    path.write_text(json.dumps(circuit_tracer_file()))
    run("export", path, "--full", "--out", out, "--slug", "my graph", "--scan", "gemma-2-9b")
    about = json.loads(out.read_text())["metadata"]
    new = {"slug": "my-graph", "scan": "gemma-2-9b"}
    assert about == circuit_tracer_file()["metadata"] | new
    file = to_neuronpedia(read_neuronpedia(path).graph, Upload("b", node_threshold=0.5))
    assert file["metadata"]["node_threshold"] == 0.5


def test_a_scan_that_neuronpedia_does_not_accept_is_reported(tmp_path):
    path, out = tmp_path / "a.json", tmp_path / "b.json"
    file = circuit_tracer_file()
    file["metadata"]["scan"] = "mntss/gemma-scope-transcoders"
    path.write_text(json.dumps(file))
    printed = run("export", path, "--full", "--out", out).stdout
    assert "does not accept the scan 'mntss/gemma-scope-transcoders': set --scan to" in printed
    printed = run("export", path, "--full", "--out", out, "--scan", "gemma-2-2b").stdout
    assert "does not accept the scan" not in printed


def test_a_file_that_is_too_large_is_pruned_as_any_other(tmp_path):
    path = tmp_path / "a.json"
    file = circuit_tracer_file()
    file["nodes"][0]["examples"] = "x" * 100_000
    path.write_text(json.dumps(file))
    graph = read_neuronpedia(path).graph
    part = write_neuronpedia(graph, tmp_path / "b.json", Upload(), largest=200_000)
    assert part is graph
    part = write_neuronpedia(graph, tmp_path / "b.json", Upload(), largest=90_000)
    assert part.imported is None
    assert (tmp_path / "b.json").stat().st_size < 10_000


def imported(tmp_path: Path) -> Path:
    path, ours = tmp_path / "a.json", tmp_path / "a.safetensors"
    path.write_text(json.dumps(neuronpedia_file()))
    write_graph(read_neuronpedia(path).graph, ours)
    return ours


def rewritten(path: Path, **changes: np.ndarray | None) -> None:
    """The same file with other arrays under `imported.`."""
    with safe_open(path, framework="np") as file:
        about = file.metadata()
    arrays = load_file(path) | {f"imported.{name}": a for name, a in changes.items()}
    save_file({n: a for n, a in arrays.items() if a is not None}, path, about)


TEXT = np.frombuffer(b'{"metadata": {"prompt_tokens": []}, "nodes": [], "links": []}', np.uint8)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": None}, "lacks the arrays imported.rows."),
        ({"rows": np.zeros(7)}, "imported.rows must be a 1D array of I8 or I16 or I32 or I64."),
        ({"text": TEXT.reshape(1, -1)}, "imported.text must be a 1D array of U8."),
        ({"rows": np.arange(6)}, "does not match the graph's nodes or edges."),
        ({"rows": np.zeros(7, np.int64)}, "does not match the graph's nodes or edges."),
        ({"links": np.arange(4)}, "does not match the graph's nodes or edges."),
        ({"links": np.array([0, 1, 2, 3, 2**62])}, "does not match the graph's nodes or edges."),
    ],
)
def test_damage_of_what_is_kept_is_refused_when_it_is_read(tmp_path, changes, sentence: str):
    ours = imported(tmp_path)
    rewritten(ours, **changes)
    with pytest.raises(GraphFileError) as caught:
        read_graph(ours)
    assert str(caught.value).endswith(sentence)


@pytest.mark.parametrize("text", [TEXT, TEXT[:9], np.zeros(0, np.uint8)])
def test_damage_of_its_text_is_refused_when_it_is_wanted(tmp_path, text: np.ndarray):
    ours, out = imported(tmp_path), tmp_path / "b.json"
    rewritten(ours, text=text)
    assert run("show", ours).exit_code == 0
    refused = run("export", ours, "--full", "--out", out)
    assert_refused(refused, "copy of the file it was read from is damaged: import that file again")
    assert not out.exists()


def test_a_graph_keeps_only_what_is_about_it():
    about = Imported(b"{}", np.arange(len(GRAPH)), np.arange(GRAPH.weights.nnz))
    assert replace(GRAPH, imported=about).imported is about
    with pytest.raises(ValueError, match="does not match the graph's nodes or edges"):
        replace(prune(GRAPH), imported=about)


def test_what_is_not_a_number_in_what_we_do_not_read_is_nothing(tmp_path):
    path, out = tmp_path / "a.json", tmp_path / "b.json"
    file = circuit_tracer_file()
    file["metadata"]["later"] = file["nodes"][0]["later"] = file["later"] = float("nan")
    path.write_text(json.dumps(file))
    exported = run("export", path, "--full", "--out", out)
    assert exported.exit_code == 0, exported.output
    back = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert back["later"] is back["metadata"]["later"] is back["nodes"][0]["later"] is None
