"""Graphs for networkx and for programs that read its files."""

from __future__ import annotations

import json

import networkx as nx
import pytest
from hypothesis import given, settings

from graphs.analysis.influence import influence
from graphs.core.annotations import Annotations, Group
from graphs.formats.interchange import to_networkx, write_gexf, write_graphml, write_node_link
from tests.graph_oracles import make_graph, random_graphs

TOKENS = ("<bos>", " \x00\x1b<&\"'\u2028", "\ufffe")
NAMES = ["token:4@1", "bias:0", "feature:0/3@1", "error:0@1", "logit:1@1"]
EDGES = {
    ("token:4@1", "feature:0/3@1"): 2.0,
    ("feature:0/3@1", "logit:1@1"): -3.0,
    ("error:0@1", "logit:1@1"): 1.0,
}
GRAPH = make_graph(NAMES, EDGES, [0.5], tokens=TOKENS, output_tokens={2: (" a", " b")})


@given(random_graphs())
@settings(max_examples=30, deadline=None)
def test_networkx_gets_every_node_and_every_edge(graph):
    drawn = to_networkx(graph)
    names = [str(node) for node in graph.nodes]
    assert list(drawn) == names
    entries = graph.weights.tocoo()
    assert {(s, t): w for s, t, w in drawn.edges(data="weight")} == {
        (names[s], names[t]): float(w)
        for t, s, w in zip(entries.row, entries.col, entries.data, strict=True)
    }
    assert [drawn.nodes[name]["influence"] for name in names] == influence(graph).tolist()
    assert nx.is_directed_acyclic_graph(drawn)


def test_nodes_carry_what_applies_to_them_and_nothing_else():
    drawn = to_networkx(GRAPH)
    assert drawn.nodes["token:4@1"] == {
        "kind": "token",
        "label": TOKENS[1],
        "pos": 1,
        "index": 4,
        "influence": 0.375,
    }
    assert drawn.nodes["feature:0/3@1"]["label"] == "say a, b"
    assert drawn.nodes["error:0@1"]["label"] == "error:0@1"
    assert drawn.nodes["bias:0"] == {
        "kind": "bias",
        "label": "bias:0",
        "layer": 0,
        "influence": 0.0,
    }
    assert drawn.nodes["logit:1@1"]["seed"] == 0.5
    assert drawn.nodes["logit:1@1"]["label"] == "t0"
    assert drawn.graph["model"] == "org/tiny model"


def test_node_link_json_comes_back(tmp_path):
    write_node_link(GRAPH, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = nx.node_link_graph(data, edges="edges")
    assert nx.utils.graphs_equal(back, to_networkx(GRAPH))


def test_graphml_comes_back_but_for_what_xml_cannot_hold(tmp_path):
    write_graphml(GRAPH, tmp_path / "a.graphml")
    back = nx.read_graphml(tmp_path / "a.graphml")
    expected = to_networkx(GRAPH)
    expected.nodes["token:4@1"]["label"] = " \ufffd\ufffd<&\"'\u2028"
    assert dict(back.nodes(data=True)) == dict(expected.nodes(data=True))
    assert {(s, t): w for s, t, w in back.edges(data="weight")} == EDGES
    assert back.graph["prompt"] == "<bos> \ufffd\ufffd<&\"'\u2028\ufffd"


def test_gexf_comes_back_but_for_model_and_prompt(tmp_path):
    notes = Annotations(
        pins=("bias:0",),
        labels={"0/3": "capital"},
        groups=(Group(name="g\x00", members=("error:0@1",)),),
    )
    write_gexf(GRAPH, tmp_path / "a.gexf", notes)
    back = nx.read_gexf(tmp_path / "a.gexf")
    expected = to_networkx(GRAPH, notes)
    expected.nodes["token:4@1"]["label"] = " \ufffd\ufffd<&\"'\u2028"
    expected.nodes["error:0@1"]["group"] = "g\ufffd"
    assert dict(back.nodes(data=True)) == dict(expected.nodes(data=True))
    assert {(s, t): w for s, t, w in back.edges(data="weight")} == EDGES


def test_notes_go_along():
    notes = Annotations(
        pins=("bias:0",),
        labels={"0/3": "capital", "token:4@1": "word"},
        groups=(Group(name="g", members=("error:0@1", "bias:0")),),
    )
    drawn = to_networkx(GRAPH, notes)
    assert drawn.nodes["feature:0/3@1"]["label"] == "capital"
    assert drawn.nodes["token:4@1"]["label"] == "word"
    assert dict(drawn.nodes(data="group")) == {
        **dict.fromkeys(NAMES),
        "error:0@1": "g",
        "bias:0": "g",
    }
    assert [name for name, pinned in drawn.nodes(data="pinned") if pinned] == ["bias:0"]


def test_an_empty_graph_is_written(tmp_path):
    empty = make_graph([], {}, probabilities=[])
    write_graphml(empty, tmp_path / "a.graphml")
    write_node_link(empty, tmp_path / "a.json")
    write_gexf(empty, tmp_path / "a.gexf")
    assert len(nx.read_gexf(tmp_path / "a.gexf")) == 0
    assert len(nx.read_graphml(tmp_path / "a.graphml")) == 0
    assert json.loads((tmp_path / "a.json").read_text())["nodes"] == []
