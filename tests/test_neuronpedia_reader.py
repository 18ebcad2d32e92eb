"""Reading the JSON of circuit-tracer and Neuronpedia."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import RESPONSE_KINDS, NodeId, NodeKind
from graphs.core.provenance import Target
from graphs.disk.files import GraphFileError
from graphs.formats.neuronpedia.names import cantor
from graphs.formats.neuronpedia.reader import read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, to_neuronpedia, write_neuronpedia
from tests.graph_oracles import make_graph, random_graphs
from tests.same_graph import assert_same_graph
from tests.test_neuronpedia import GRAPH, NAMES, SCHEMA


def node(node_id: str, feature_type: str, layer: str, pos: int, **more: Any) -> dict[str, Any]:
    """A node as circuit-tracer writes it."""
    return {
        "node_id": node_id,
        "feature": -1,
        "layer": layer,
        "ctx_idx": pos,
        "feature_type": feature_type,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": node_id,
        "clerp": "",
        "influence": 0.5,
        "activation": None,
        **more,
    }


def circuit_tracer_file() -> dict[str, Any]:
    """In circuit-tracer's order: features, errors, tokens, logits; both spellings of errors."""
    feature = "cross layer transcoder"
    return {
        "metadata": {
            "slug": "demo",
            "scan": "gemma-2-2b",
            "transcoder_list": [],
            "prompt_tokens": ["<bos>", "Hi"],
            "prompt": "<bos>Hi",
            "node_threshold": 0.8,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [
            node("0_77_1", feature, "0", 1, feature=cantor(0, 77), activation=5.25),
            node("3_77_1", feature, "3", 1, feature=3317, activation=0.5),
            node("0_5_1", "mlp reconstruction error", "5", 1),
            node("3_-1_1", "mlp reconstruction error", "3", 1),
            node("E_2_0", "embedding", "E", 0, feature=0),
            node("E_4521_1", "embedding", "E", 1, feature=1),
            node(
                "27_23_1",
                "logit",
                "27",
                1,
                feature=23,
                token_prob=0.61,
                is_target_logit=True,
                influence=None,
                clerp='Output " "there"" (p=0.610)',
            ),
        ],
        "links": [
            {"source": "E_4521_1", "target": "0_77_1", "weight": 1.75},
            {"source": "0_77_1", "target": "3_77_1", "weight": -0.5},
            {"source": "0_5_1", "target": "27_23_1", "weight": 0.25},
            {"source": "3_-1_1", "target": "27_23_1", "weight": 0.125},
            {"source": "3_77_1", "target": "27_23_1", "weight": 0.9},
        ],
    }


def read(content: dict[str, Any] | bytes) -> AttributionGraph:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.json")
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return read_neuronpedia(path).graph


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_a_graph_comes_back_as_it_was(graph):
    with tempfile.TemporaryDirectory() as folder:
        write_neuronpedia(graph, Path(folder, "a.json"), Upload("demo"))
        back = read_neuronpedia(Path(folder, "a.json")).graph
        # The format has no place for responses.
        assert_same_graph(back, replace(graph, responses=None), dtypes=False)


def test_all_kinds_are_spelled_and_read():
    found = {NodeId.parse(name).kind for name in NAMES}
    assert found == {*NodeKind} - {*RESPONSE_KINDS, NodeKind.HEAD}
    assert_same_graph(read(to_neuronpedia(GRAPH, Upload("demo"))), GRAPH, dtypes=False)


def test_heads_come_back_and_before_features_of_their_layer_however_they_are_listed():
    names = ["token:4@0", "bias:1", "head:1/2@1", "feature:1/3@1", "error:1@1", "logit:7@1"]
    graph = make_graph(names, {(names[2], names[3]): 2.0, (names[0], names[2]): -1.0}, [1.0])
    file = to_neuronpedia(graph, Upload("demo"))
    assert_same_graph(read(file), graph, dtypes=False)
    assert file["nodes"][2]["node_id"] == "head_1_2_1"
    file["nodes"].reverse()
    assert [str(node) for node in read(file).nodes] == names


def test_a_file_of_circuit_tracer_is_read():
    graph = read(circuit_tracer_file())
    assert [str(n) for n in graph.nodes] == [
        "token:2@0",
        "token:4521@1",
        "feature:0/77@1",
        "feature:3/77@1",
        "error:3@1",
        "error:5@1",
        "logit:23@1",
    ]
    assert graph.weights.toarray()[2:].tolist() == [
        [0, 1.75, 0, 0, 0, 0, 0],
        [0, 0, -0.5, 0, 0, 0, 0],
        [0] * 7,
        [0] * 7,
        [0, 0, 0, 0.9, 0.125, 0.25, 0],
    ]
    assert graph.nodes.activation[2:4].tolist() == [5.25, 0.5]
    assert graph.seed.tolist() == [0, 0, 0, 0, 0, 0, 0.61]
    assert graph.expanded.tolist() == [False, False, True, True, False, False, True]
    header = graph.provenance
    assert (header.model.name, header.model.n_layers) == ("gemma-2-2b", 26)
    assert (header.tokens, header.token_ids) == (("<bos>", "Hi"), (2, 4521))
    assert header.targets[0].model_dump() == {
        "text": ' "there"',
        "token_id": 23,
        "probability": 0.61,
        "reading": None,
    }
    assert (header.generator, header.dictionary.name) == ("unknown", "gemma-2-2b")
    lines = edited("nodes", 6, "clerp", value='Output "\n" (p=0.610)')
    assert read(lines).provenance.targets[0].text == "\n"
    assert header.settings["imported"]["node_threshold"] == 0.8


def test_what_info_says_reaches_the_header():
    file = circuit_tracer_file()
    file["metadata"]["info"] = {
        "generator": {"name": "tool", "version": "1.2"},
        "transcoder_set": "org/set",
    }
    header = read(file).provenance
    assert (header.generator, header.dictionary.name) == ("tool 1.2", "org/set")
    del file["metadata"]["info"]
    file["metadata"]["transcoder_list"] = ["a", "b"]
    assert read(file).provenance.dictionary.name == "a, b"
    file["metadata"]["feature_details"] = {"neuronpedia_source_set": "clt-hp"}
    assert read(file).provenance.dictionary.name == "clt-hp"


def test_a_file_needs_no_more_than_the_schema_requires():
    file = circuit_tracer_file()
    required = SCHEMA["properties"]["nodes"]["items"]["required"]
    file["nodes"] = [{key: member[key] for key in required} for member in file["nodes"]]
    file["metadata"] = {k: file["metadata"][k] for k in ("slug", "scan", "prompt_tokens", "prompt")}
    file["qParams"] = {}
    file["nodes"][0]["node_id"] = file["links"][0]["target"] = "anything"  # decoded from feature
    file["links"][1]["source"] = "anything"
    file["nodes"][0]["layer"] = 0
    assert "feature:0/77@1" in [str(n) for n in read(file).nodes]
    assert read(file).seed.tolist() == [0.0] * 6 + [0.61]  # from the text of the logit


def test_links_from_nodes_that_were_left_out_count_as_dropped():
    file = circuit_tracer_file()
    file["links"] += [
        {"source": "gone", "target": "3_77_1", "weight": -2.0},
        {"source": "3_77_1", "target": "gone", "weight": 9.0},
    ]
    with pytest.raises(GraphFileError, match=r"Link 5 refers to 'gone', which is not among the"):
        read(file)
    del file["metadata"]["schema_version"]
    graph = read(file)
    row = graph.find("feature:3/77@1")
    assert (graph.dropped[row], graph.dropped_absolute[row]) == (-2.0, 2.0)
    assert graph.dropped_absolute.sum() == 2.0


def test_any_topological_order_comes_back():
    names = ["error:3@1", "token:4@0", "target:0@1", "logit:7@1", "feature:0/3@1", "logit:9@1"]
    edges = {("feature:0/3@1", "logit:9@1"): 1.0, ("error:3@1", "target:0@1"): 2.0}
    graph = make_graph(names, edges)
    assert_same_graph(read(to_neuronpedia(graph, Upload("demo"))), graph, dtypes=False)


def test_a_file_of_ours_may_have_been_pinned_and_reordered():
    file = to_neuronpedia(GRAPH, Upload("demo"))
    file["qParams"]["pinnedIds"] = "0_3_1"
    assert_same_graph(read(file), GRAPH, dtypes=False)
    extra = file["headwater"]
    for column in ("value", "dropped", "dropped_absolute", "expanded"):
        extra[column].reverse()
    file["nodes"].reverse()
    extra["provenance"]["targets"].reverse()
    extra["output_tokens"] = {"4": extra["output_tokens"]["3"]}
    back = read(file)
    assert sorted(map(str, back.nodes)) == sorted(NAMES)
    assert back.output_tokens == {back.find("feature:0/3@1"): (" Paris", "é")}
    assert back.expanded[back.find("feature:0/3@1")]
    by_name = dict(zip(map(str, back.nodes), back.seed, strict=True))
    assert [by_name[name] for name in NAMES] == GRAPH.seed.tolist()
    assert [target.text for target in back.provenance.targets] == ["t2", "t1", "t0"]
    assert [str(back.nodes[int(row)]) for row in back.target_rows()] == NAMES[:4:-1]


def edited(*path: Any, value: Any) -> dict[str, Any]:
    """circuit-tracer's file with one place changed."""
    file = circuit_tracer_file()
    place: Any = file
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return file


def own(*path: Any, value: Any) -> dict[str, Any]:
    file = to_neuronpedia(GRAPH, Upload("demo"))
    file["headwater"][path[0]] = value
    return file


HOSTILE = {
    "is not a graph of circuit-tracer or Neuronpedia: links: Field": {
        "metadata": circuit_tracer_file()["metadata"],
        "qParams": {},
        "nodes": [],
    },
    "nodes.0.ctx_idx: Input should be greater": edited("nodes", 0, "ctx_idx", value=-1),
    "nodes.0.layer": edited("nodes", 0, "layer", value=None),
    "unknown feature_type 'lorsa'": edited("nodes", 0, "feature_type", value="lorsa"),
    "has 'x' where a whole number is expected": edited("nodes", 0, "layer", value="x"),
    "has '1000000' where a whole number": edited("nodes", 0, "layer", value=1_000_000),
    "Neither id nor number of feature '3_77_1' fits layer 4": edited("nodes", 1, "layer", value=4),
    "'L' does not state its vocabulary id": edited(
        "nodes", 6, value=node("L", "logit", "27", 1, feature=None)
    ),
    "position must be below 2": edited("nodes", 4, "ctx_idx", value=2**30),
    "Two nodes have the id '0_77_1', so their links are ambiguous": edited(
        "nodes", 2, "node_id", value="0_77_1"
    ),
    "Nodes 2 and 3 are both error:5@1": edited("nodes", 3, "layer", value=5),
    "Link 1 runs from feature:0/77@1 to feature:0/77@1 and closes a cycle": edited(
        "links", 1, "target", value="0_77_1"
    ),
    "Link 0 runs from token:4521@1 to token:2@0, against the order of layers": edited(
        "links", 0, "target", value="E_2_0"
    ),
    "and closes a cycle; a graph of direct effects has none": {
        **circuit_tracer_file(),
        "links": [
            {"source": "0_77_1", "target": "3_77_1", "weight": 1.0},
            {"source": "3_77_1", "target": "0_77_1", "weight": 1.0},
        ],
    },
    "weight: Input should be a valid number": edited("links", 0, "weight", value="x"),
    "links.0.weight: Input should be a finite": edited("links", 0, "weight", value=np.inf),
    "Link 4 is the second one from error:3@1 to logit:23@1": edited(
        "links", 4, value=circuit_tracer_file()["links"][3]
    ),
    "nodes.6.token_prob: Input should be a finite": edited("nodes", 6, "token_prob", value=np.inf),
    "'P_3' does not state its vocabulary id": edited(
        "nodes", 6, value=node("P_3", "logit", "27", 1, feature=None)
    ),
    "Only logit and target nodes": edited("nodes", 0, "token_prob", value=0.5),
    "match the nodes: remove it": own("expanded", value=[True]),
    "has schema 4, but this version of headwater reads up to 3": own(
        "provenance", value={"schema_version": 4}
    ),
    "headwater.provenance.generator: Field required": own(
        "provenance", value={"schema_version": 1}
    ),
    "The key headwater does not match the nodes": own("output_tokens", value={"-1": ["b"]}),
    "headwater does not match the nodes": own("output_tokens", value={"8": ["b"]}),
    "A weight is not finite": {
        **edited("links", 0, "weight", value=1e300),
        "headwater": {
            **to_neuronpedia(read(circuit_tracer_file()), Upload("a"))["headwater"],
            "weights_dtype": "float32",
        },
    },
}


@pytest.mark.parametrize("text", sorted(HOSTILE))
def test_a_file_that_breaks_the_format_is_refused_with_one_sentence(text: str):
    with pytest.raises(GraphFileError) as caught:
        read(HOSTILE[text])
    sentence = str(caught.value)
    assert text in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"metadata": ' * 5000]
)
def test_what_is_no_json_is_refused(content: bytes):
    with pytest.raises(GraphFileError, match="is not a graph of circuit-tracer or Neuronpedia"):
        read(content)


def test_ids_that_we_wrote_before_are_read():
    file = to_neuronpedia(GRAPH, Upload("demo"))
    for now, then in (("3_-1_1", "err_3_1"), ("5_-1_1", "target_0_1")):
        text = json.dumps(file)
        assert f'"{now}"' in text
        file = json.loads(text.replace(f'"{now}"', f'"{then}"'))
    assert_same_graph(read(file), GRAPH, dtypes=False)


def test_a_prediction_needs_no_layer_and_a_feature_does():
    """Its layer only says how deep the model is."""
    file = edited("nodes", 6, "layer", value=None)
    graph = read(file)
    assert str(graph.nodes[6]) == "logit:23@1"
    assert graph.provenance.model.n_layers == 6  # layer 5 has an error
    del file["nodes"][6]["layer"]
    assert_same_graph(read(file), graph)


def test_null_is_as_good_as_missing():
    file = circuit_tracer_file()
    for member in file["nodes"]:
        member |= {"clerp": member["clerp"] or None, "jsNodeId": None, "influence": None}
    file["metadata"] |= {"transcoder_list": None, "info": None, "prompt": None, "slug": None}
    del file["metadata"]["scan"], file["qParams"]
    header = read(file).provenance
    assert (header.model.name, header.prompt) == ("unknown", "<bos>Hi")


def test_a_graph_of_attribute_is_read():
    """EleutherAI's spelling: positions come first, and nothing names the vocabulary."""
    feature = "cross layer transcoder"
    nodes = [
        node("input_0", "embedding", "E", 0, feature=None),
        node("input_1", "embedding", "E", 1, feature=None),
        node("intermediate_1_0_77", feature, "0", 1, feature=cantor(0, 77)),
        node("intermediate_1_3_9", feature, "3", 1, feature=cantor(3, 9)),
        node("error_1_3", "mlp reconstruction error", "3", 1, feature=None),
        node(
            "output_1_0",
            "logit",
            "-1",
            1,
            feature=None,
            token_prob=0.5,
            clerp='output: " b" (p=0.500)',
        ),
    ]
    links = [
        {"source": "input_1", "target": "intermediate_1_0_77", "weight": 1.5},
        {"source": "intermediate_1_0_77", "target": "intermediate_1_3_9", "weight": 0.5},
        {"source": "intermediate_1_3_9", "target": "output_1_0", "weight": -0.25},
        {"source": "error_1_3", "target": "output_1_0", "weight": 0.125},
    ]
    metadata = {
        "slug": "demo",
        "scan": "default",
        "prompt_tokens": ["a", " b"],
        "prompt": "a b",
        "title_prefix": "",
        "n_layers": 12,
        "node_sep_threshold": 0.1,
    }
    graph = read(
        {"metadata": metadata, "qParams": {"linkType": "both"}, "nodes": nodes, "links": links}
    )
    assert [str(n) for n in graph.nodes] == [
        "token:0@0",
        "token:1@1",
        "feature:0/77@1",
        "feature:3/9@1",
        "error:3@1",
        "target:0@1",
    ]
    header = graph.provenance
    assert (header.model.n_layers, header.token_ids) == (12, (-1, -1))
    assert header.targets == (Target(text=" b", token_id=None, probability=0.5),)
    assert graph.weights.toarray()[5].tolist() == [0, 0, 0, -0.25, 0.125, 0]


def anthropic_file() -> dict[str, Any]:
    """As Anthropic published: numbers run through all features, and pins are jsNodeIds."""
    feature = "cross layer transcoder"
    nodes = [
        node("E_26865_1", "embedding", "E", 1, feature=26865, jsNodeId="E_26865-1"),
        node("q1", feature, "5", 1, feature=10_006_796, jsNodeId="5_q-1", clerp="Texas"),
        node("q2", feature, "5", 2, feature=10_006_796, jsNodeId="5_q-2", clerp="Texas"),
        node("q3", feature, "9", 2, feature=10_022_605, jsNodeId="9_q-2", clerp="say a capital"),
        node(
            "E1_18142_2",
            "logit",
            "E1",
            2,
            feature=18142,
            jsNodeId="L_18142-2",
            token_prob=0.75,
            clerp="output: 'Austin' (p=0.750)",
        ),
    ]
    links = [
        {"source": "E_26865_1", "target": "q1", "weight": 2.0},
        {"source": "q1", "target": "q3", "weight": 1.0},
        {"source": "q2", "target": "q3", "weight": 0.5},
        {"source": "q3", "target": "E1_18142_2", "weight": 3.0},
    ]
    return {
        "metadata": {
            "slug": "capital",
            "scan": "jackl-circuits-runs-1-4-sofa-v3_0",
            "prompt_tokens": ["\n", " Dallas", " is"],
            "prompt": " Dallas is",
            "title_prefix": "",
        },
        "qParams": {
            "pinnedIds": ["9_q-2", "L_18142-2", "gone"],
            "supernodes": [["Texas", "5_q-1", "5_q-2"], ["again", "5_q-1"], []],
            "clickedId": None,
            "linkType": "either",
            "sg_pos": "1 2",
        },
        "nodes": nodes,
        "links": links,
    }


def test_a_published_graph_of_anthropic_is_read(tmp_path):
    path = tmp_path / "capital.json"
    path.write_text(json.dumps(anthropic_file()))
    graph, notes, remarks = read_neuronpedia(path)
    assert not remarks
    assert [str(n) for n in graph.nodes] == [
        "token:26865@1",
        "feature:5/10006796@1",
        "feature:5/10006796@2",
        "feature:9/10022605@2",
        "logit:18142@2",
    ]
    assert graph.provenance.targets[0].text == "Austin"
    assert [graph.label(row) for row in (1, 2, 3)] == ["Texas", "Texas", "say a capital"]
    assert notes.pins == ("feature:9/10022605@2", "logit:18142@2")
    assert [(group.name, group.members) for group in notes.groups] == [
        ("Texas", ("feature:5/10006796@1", "feature:5/10006796@2"))
    ]


def test_a_number_that_is_no_pair_is_a_fault_where_the_file_promises_pairs():
    file = anthropic_file()
    file["metadata"]["schema_version"] = 1
    with pytest.raises(GraphFileError, match="Neither id nor number of feature 'q1' fits layer 5"):
        read(file)
