"""Writing the JSON of circuit-tracer and Neuronpedia."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.analysis.prune import PruneSettings, cumulative_influence, prune
from graphs.core.annotations import Annotations
from graphs.formats.neuronpedia.names import cantor, uncantor
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia
from tests.graph_oracles import make_graph, random_graphs

SCHEMA = json.loads(
    Path(__file__).with_name("data").joinpath("neuronpedia_graph_schema.json").read_text()
)


NAMES = [
    "token:4@0",
    "position:0",
    "bias:0",
    "feature:0/3@1",
    "error:3@1",
    "logit:7@1",
    "logit:9@1",
    "target:0@1",
]


EDGES = {
    ("token:4@0", "feature:0/3@1"): 2.0,
    ("feature:0/3@1", "logit:7@1"): -3.0,
    ("error:3@1", "logit:7@1"): 1.0,
}


GRAPH = make_graph(NAMES, EDGES, [0.25, 0.125, 1.0], output_tokens={3: (" Paris", "é")})


@given(random_graphs(), st.sampled_from([0.3, 0.8]))
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_what_neuronpedia_requires(graph, threshold):
    pruned = prune(graph, PruneSettings(threshold))
    file = to_neuronpedia(pruned, Upload("a/b c", node_threshold=1.0))
    jsonschema.validate(json.loads(json.dumps(file, allow_nan=False)), SCHEMA)
    ids = [member["node_id"] for member in file["nodes"]]
    assert len(set(ids)) == len(ids) == len(pruned)
    assert all(link["source"] in ids and link["target"] in ids for link in file["links"])
    assert file["metadata"]["pruning_settings"]["node_threshold"] == threshold
    assert "prune" not in file["metadata"]["generation_settings"]


def test_the_schema_refuses_what_neuronpedia_refuses():
    good = to_neuronpedia(GRAPH, Upload("demo"))
    jsonschema.validate(good, SCHEMA)
    bad = [
        {**good, "qParams": None},
        {**good, "metadata": {**good["metadata"], "scan": "org/model"}},
        {**good, "nodes": [{**good["nodes"][-1], "clerp": "no probability"}]},
        {**good, "links": [{"source": "a", "target": "b"}]},
    ]
    for file in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(file, SCHEMA)


def test_nodes_are_spelled_as_the_viewers_expect():
    nodes = to_neuronpedia(GRAPH, Upload("demo"))["nodes"]
    keys = ("node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp")
    assert [tuple(member[key] for key in keys) for member in nodes] == [
        ("E_4_0", 0, "E", 0, "embedding", "E_4-0", ""),
        ("P_0", 0, "E", 0, "embedding", "P-0", ""),
        ("bias_0", -1, "0", 0, "bias", "bias_0-0", ""),
        ("0_3_1", cantor(0, 3), "0", 1, "cross layer transcoder", "0_3-0", "say Paris, é"),
        ("3_-1_1", -1, "3", 1, "mlp reconstruction error", "3_-1-1", ""),
        ("5_7_1", 7, "5", 1, "logit", "L_7-1", 'Output "t0" (p=0.250)'),
        ("5_9_1", 9, "5", 1, "logit", "L_9-1", 'Output "t1" (p=0.125)'),
        ("5_-1_1", -1, "5", 1, "logit", "target_0-1", 'Output "t2" (p=1.000)'),
    ]
    assert [member["is_target_logit"] for member in nodes] == [False] * 5 + [True, False, False]
    assert [member["token_prob"] for member in nodes] == [0.0] * 5 + [0.25, 0.125, 1.0]
    influence = cumulative_influence(GRAPH)[:5].tolist()
    assert [member["influence"] for member in nodes] == [*influence, None, None, None]
    assert not {member["run_idx"] + member["reverse_ctx_idx"] for member in nodes} - {0}


def test_an_error_has_another_id_than_a_feature_of_layer_0():
    names = ["feature:0/5@1", "error:5@1", "logit:0@1"]
    graph = make_graph(names, {(name, names[2]): 1.0 for name in names[:2]})
    assert [n["node_id"] for n in to_neuronpedia(graph, Upload("demo"))["nodes"]][:2] == [
        "0_5_1",
        "5_-1_1",
    ]


def test_the_ids_of_what_is_pinned_are_three_whole_numbers():
    """Or begin with E_, P_ or bias_: circuit-tracer reads the first and skips the others."""
    notes = Annotations(pins=tuple(NAMES))
    pinned = to_neuronpedia(GRAPH, Upload("demo"), notes)["qParams"]["pinnedIds"]
    assert len(pinned) == len(NAMES)
    read = [
        tuple(map(int, one.split("_"))) for one in pinned if one.count("_") == 2 and one[0] != "E"
    ]
    #          layer, index, position
    assert read == [(0, 3, 1), (3, -1, 1), (5, 7, 1), (5, 9, 1), (5, -1, 1)]
    assert len(set(read)) == len(read)


def test_metadata_names_model_dictionary_and_program_in_full():
    metadata = to_neuronpedia(GRAPH, Upload("my graph/1", node_threshold=0.5))["metadata"]
    assert (metadata["slug"], metadata["scan"]) == ("my-graph-1", "tiny-model")
    assert metadata["node_threshold"] == 0.5
    assert metadata["prompt_tokens"] == ["<bos>", " the", " cat"]
    assert metadata["generation_settings"] == {"batch": 4, "why": None}
    assert metadata["info"] == {
        "generator": {"name": "headwater", "version": "0.1.0"},
        "transcoder_set": "org/tiny-plt@" + "a" * 40,
        "source_urls": ["https://huggingface.co/org/tiny-plt/tree/" + "a" * 40],
        "model": "org/tiny model",
    }
    assert to_neuronpedia(GRAPH, Upload("a", scan="org/x"))["metadata"]["scan"] == "org-x"
    with pytest.raises(ValueError, match="must not be empty"):
        to_neuronpedia(GRAPH, Upload(""))


def test_an_infinite_activation_is_in_no_graph():
    """JSON could not hold it."""
    columns = GRAPH.nodes.columns() | {"activation": np.full(8, np.inf)}
    with pytest.raises(ValueError, match="An activation or value is infinite"):
        replace(GRAPH, nodes=type(GRAPH.nodes)(**columns))


@given(st.integers(0, 10**6), st.integers(0, 10**12))
@settings(max_examples=50, deadline=None)
def test_pairs_are_decoded_exactly(layer, index):
    assert uncantor(cantor(layer, index)) == (layer, index)
