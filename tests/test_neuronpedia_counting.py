"""What numbers of features and layers mean in a file, decided from all its nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphs.core.nodes import NodeKind
from graphs.disk.files import GraphFileError
from graphs.formats.neuronpedia.reader import ReadGraph, read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia
from tests.same_graph import assert_same_graph
from tests.test_cli import assert_refused, run
from tests.test_neuronpedia_reader import anthropic_file, circuit_tracer_file, node

FEATURE = "cross layer transcoder"


def pair(layer: int, index: int) -> int:
    """The Cantor pair, counted: diagonals of 1, 2, 3, … numbers, and the index's place in one."""
    return sum(range(1, layer + index + 1)) + index


def read(tmp_path: Path, file: dict[str, Any]) -> ReadGraph:
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(file))
    return read_neuronpedia(path)


def features(read: ReadGraph) -> list[tuple[int | None, int | None]]:
    """Layers and indices, in the file's order."""
    return [(n.layer, n.index) for n in read.graph.nodes if n.kind == NodeKind.FEATURE]


def file_of(numbers: list[tuple[str, int, int | None]]) -> dict[str, Any]:
    """A file without schema_version whose features have these ids, layers and numbers."""
    file = circuit_tracer_file()
    del file["metadata"]["schema_version"]
    nodes = [node(name, FEATURE, str(layer), 1, feature=n) for name, layer, n in numbers]
    file["nodes"] = [*file["nodes"][4:6], *nodes, file["nodes"][6]]
    file["links"] = [{"source": n["node_id"], "target": "27_23_1", "weight": 1.0} for n in nodes]
    return file


# (2, 12) is also the pair of layer 2 and index 2, (3, 24) that of layer 3 and index 3.
PLAIN = [("f2_11", 2, 11), ("f2_12", 2, 12), ("f3_12", 3, 12), ("f3_24", 3, 24)]


def test_numbers_that_are_not_all_pairs_are_plain_and_a_remark_says_so(tmp_path):
    found = read(tmp_path, file_of(PLAIN))
    assert features(found) == [(2, 11), (2, 12), (3, 12), (3, 24)]
    assert found.remarks == (
        "Neither ids nor schema_version state how features are numbered: `feature` is read as the "
        "index itself, since 2 of 4 numbers are pairs of their own layer.",
    )


def test_numbers_that_are_all_pairs_of_their_layers_are_pairs(tmp_path):
    numbers = [("a", 2, pair(2, 2)), ("b", 3, pair(3, 3)), ("c", 0, pair(0, 16000))]
    found = read(tmp_path, file_of(numbers))
    assert features(found) == [(2, 2), (3, 3), (0, 16000)]
    assert "as a Cantor pair of layer and index, since 3 of 3 numbers are pairs" in found.remarks[0]


def test_the_remark_is_printed_and_nothing_where_nothing_was_decided(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(file_of(PLAIN)))
    assert "graph.json: Neither ids nor schema_version state" in run("show", path).stderr
    for file in (circuit_tracer_file(), anthropic_file()):
        path.write_text(json.dumps(file))
        assert run("show", path).stderr == ""


def test_ids_show_what_the_numbers_of_other_features_mean(tmp_path):
    plain = read(tmp_path, file_of([("2_11_1", 2, 11), ("x", 2, 12)]))
    assert (features(plain), plain.remarks) == ([(2, 11), (2, 12)], ())
    pairs = read(tmp_path, file_of([("2_11_1", 2, pair(2, 11)), ("x", 2, 12)]))
    assert (features(pairs), pairs.remarks) == ([(2, 11), (2, 2)], ())
    silent = read(tmp_path, file_of([("2_11_1", 2, None), ("x", 2, 12)]))
    assert (features(silent), len(silent.remarks)) == ([(2, 11), (2, 2)], 1)
    with pytest.raises(GraphFileError, match="Neither id nor number of feature 'x' fits layer 2"):
        read(tmp_path, file_of([("2_11_1", 2, pair(2, 11)), ("x", 2, 13)]))


def test_ids_that_contradict_each_other_are_refused_only_if_something_hangs_on_it(tmp_path):
    both = [("2_11_1", 2, 11), ("3_77_1", 3, pair(3, 77))]
    assert features(read(tmp_path, file_of(both))) == [(2, 11), (3, 77)]
    with pytest.raises(
        GraphFileError, match=r"The index of feature 'x' is ambiguous: for nodes with"
    ):
        read(tmp_path, file_of([*both, ("x", 2, 12)]))


def test_the_first_numbers_of_circuit_tracer_are_read_from_its_ids(tmp_path):
    """Until July 2025: layer, then five digits of the index."""
    numbers = [("2_11_1", 2, 200_011), ("3_24_1", 3, 300_024)]
    assert features(read(tmp_path, file_of(numbers))) == [(2, 11), (3, 24)]
    with pytest.raises(GraphFileError, match=r"The index of feature 'x' is ambiguous"):
        read(tmp_path, file_of([*numbers, ("x", 2, 200_012)]))


def test_an_id_of_another_place_is_no_plain_number(tmp_path):
    with pytest.raises(GraphFileError, match="Neither id nor number of feature '7_5_1' fits layer"):
        read(tmp_path, file_of([*PLAIN, ("7_5_1", 2, 13)]))


def test_a_label_of_a_number_is_that_of_every_feature_with_the_number(tmp_path):
    file = file_of(PLAIN)
    file["qParams"]["clerps"] = [["12", "first"], ["12", "twelve"], ["3_24_1", "one place"]]
    assert read(tmp_path, file).annotations.labels == {
        "2/12": "twelve",
        "3/12": "twelve",
        "feature:3/24@1": "one place",
    }


def test_labels_that_are_no_pairs_are_refused(tmp_path):
    file = circuit_tracer_file()
    file["qParams"]["clerps"] = '[["a", "b", "c"]]'
    with pytest.raises(
        GraphFileError, match=r"qParams\.clerps must hold pairs of a key and a label"
    ):
        read(tmp_path, file)


def openmoss_file() -> dict[str, Any]:
    """As OpenMOSS' server makes it: MLPs are layers 1, 3, …, logits stand in twice the layers."""

    def member(node_id: str, kind: str, layer: int, pos: int, **more: Any) -> dict[str, Any]:
        return {
            "feature_type": kind,
            "node_id": node_id,
            "layer": layer,
            "ctx_idx": pos,
            "is_target_logit": kind == "logit",
            "is_from_qk_tracing": False,
            **more,
        }

    record = {"activation": 0.5, "sae_name": "set-L1M", "qk_tracing_results": None}
    return {
        "metadata": {"prompt_tokens": ["The", " cat"], "prompt": "The cat", "schema_version": 1},
        "nodes": [
            member("E_651_0", "embedding", -1, 0, token="The"),
            member("E_-1_1", "embedding", -1, 1, token=" cat"),
            member("1_7_0", FEATURE, 1, 0, feature=7, **record),
            member("3_12_1", FEATURE, 3, 1, feature=12, **record),
            member("3_error_1", "mlp reconstruction error", 3, 1),
            member("8_100_1", "logit", 8, 1, token_prob=0.25, token=" sat"),
            member("8_101_1", "logit", 8, 1, token_prob=0.125, token=' "ran"'),
        ],
        "links": [
            {"source": "E_651_0", "target": "1_7_0", "weight": 1.0},
            {"source": "1_7_0", "target": "3_12_1", "weight": 0.5},
            {"source": "3_error_1", "target": "8_100_1", "weight": 0.5},
            {"source": "3_12_1", "target": "8_101_1", "weight": -2.0},
        ],
    }


NODES = [
    "token:651@0",
    "token:1@1",
    "feature:0/7@0",
    "feature:1/12@1",
    "error:1@1",
    "logit:100@1",
    "logit:101@1",
]


def test_layers_that_count_attention_and_mlp_are_read_as_layers(tmp_path):
    found = read(tmp_path, openmoss_file())
    assert [str(node) for node in found.graph.nodes] == NODES
    header = found.graph.provenance
    assert (header.model.n_layers, header.token_ids) == (4, (651, -1))
    assert [(t.text, t.token_id, t.probability) for t in header.targets] == [
        (" sat", 100, 0.25),
        (' "ran"', 101, 0.125),
    ]
    assert found.remarks == (
        "Layers are numbered as by OpenMOSS' server, attention as 2l and MLPs as 2l + 1; both are "
        "read as layer l.",
    )


def test_the_answer_of_the_server_is_read_and_its_records_of_features(tmp_path):
    file = openmoss_file()
    for place, index in ((2, 7), (3, 12)):
        file["nodes"][place]["feature"] = {"feature_index": index, "act_times": 3}
    answer = {"circuit_id": "c", "sae_set_name": "s", "graph_data": file, "node_threshold": 0.6}
    found = read(tmp_path, answer)
    assert [str(node) for node in found.graph.nodes] == NODES
    del file["links"]
    with pytest.raises(GraphFileError, match=r"graph_data\.links: Field required"):
        read(tmp_path, answer)


def test_two_signs_are_enough_if_the_layers_are_as_there(tmp_path):
    file = openmoss_file()
    for member in file["nodes"]:
        del member["is_from_qk_tracing"]
    del file["nodes"][4], file["links"][2]  # the error, whose id is as there
    assert features(read(tmp_path, file)) == [(0, 7), (1, 12)]
    file["nodes"][3] |= {"layer": 2, "node_id": "2_12_1"}
    file["links"][1]["target"] = file["links"][2]["source"] = "2_12_1"
    found = read(tmp_path, file)
    assert (features(found), found.remarks) == ([(1, 7), (2, 12)], ())


def test_a_part_of_such_a_graph_is_written_with_its_layers(tmp_path):
    file = openmoss_file()
    file["metadata"]["tc_analysis_name"] = "BT4_tc"
    found = read(tmp_path, file)
    assert features(found) == [(0, 7), (1, 12)]
    part = found.graph.take(np.arange(1, 7))
    again = read(tmp_path, to_neuronpedia(part, Upload("a")))
    assert_same_graph(again.graph, part, dtypes=False)
    assert again.remarks == ()


def test_what_does_not_fit_the_layers_of_the_server_is_refused(tmp_path):
    path = tmp_path / "graph.json"
    for place, change, kind in (
        (3, {"layer": 2, "node_id": "2_12_1"}, FEATURE),
        (4, {"layer": 0, "feature_type": "bias"}, "bias"),
    ):
        file = openmoss_file()
        file["nodes"][place] |= change
        path.write_text(json.dumps(file))
        refused = run("show", path)
        assert_refused(refused, f"of kind {kind!r} has layer {change['layer']}; OpenMOSS'")


def test_attention_is_refused_by_its_name(tmp_path):
    path = tmp_path / "graph.json"
    file = openmoss_file()
    file["nodes"][2]["feature_type"] = "lorsa"
    path.write_text(json.dumps(file))
    assert_refused(run("show", path), "has the unknown feature_type 'lorsa'")
