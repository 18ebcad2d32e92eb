"""Graphs as DOT, read back by pydot, which has the grammar of Graphviz."""

from __future__ import annotations

import pydot
import pytest
from hypothesis import given, settings

from graphs.core.annotations import NO_ANNOTATIONS, Annotations, Group
from graphs.core.graph import AttributionGraph
from graphs.formats.dot import to_dot, write_dot
from tests.graph_oracles import make_graph, random_graphs
from tests.test_interchange import EDGES, GRAPH, NAMES

# pydot 4.0 calls pyparsing by its old names.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pydot"),
    pytest.mark.usefixtures("either_system"),
]


def parsed(graph: AttributionGraph, notes: Annotations = NO_ANNOTATIONS) -> pydot.Dot:
    (found,) = pydot.graph_from_dot_data(to_dot(graph, notes)) or [None]
    assert found is not None
    return found


def plain(text: str) -> str:
    return text.removeprefix('"').removesuffix('"').replace('\\"', '"').replace("\\\\", "\\")


@given(random_graphs())
@settings(max_examples=20, deadline=None)
def test_every_node_and_every_edge_is_there(graph):
    found = parsed(graph)
    names = [str(node) for node in graph.nodes]
    defaults = {"node", "edge", '"\\n"'}
    assert [plain(n.get_name()) for n in found.get_nodes() if n.get_name() not in defaults] == names
    entries = graph.weights.tocoo()
    assert {
        (plain(edge.get_source()), plain(edge.get_destination())): float(plain(edge.get("effect")))
        for edge in found.get_edges()
    } == {
        (names[s], names[t]): float(w)
        for t, s, w in zip(entries.row, entries.col, entries.data, strict=True)
    }


def test_kinds_shares_and_signs_can_be_seen():
    found = parsed(GRAPH)
    shapes = [found.get_node(f'"{name}"')[0].get("shape") for name in NAMES]
    assert shapes == ["box", "triangle", "ellipse", "diamond", "box"]
    signs = {
        (plain(e.get_source()), plain(e.get_destination())): e.get("style")
        for e in found.get_edges()
    }
    assert signs == {ends: "dashed" if weight < 0 else None for ends, weight in EDGES.items()}
    widths = [float(edge.get("penwidth")) for edge in found.get_edges()]
    assert widths == pytest.approx([6.0, 0.3 + 5.7 * 0.75, 0.3 + 5.7 * 0.25], abs=0.01)


def test_a_head_is_a_triangle_with_its_layer_and_number():
    names = ["token:4@0", "head:1/2@0", "logit:7@0"]
    found = parsed(make_graph(names, {(names[1], names[2]): 1.0}, [1.0]))
    head = found.get_node('"head:1/2@0"')[0]
    assert (head.get("shape"), plain(head.get("label"))) == ("invtriangle", "head 1.2")


def test_supernodes_are_clusters_and_pins_bold():
    notes = Annotations(
        pins=("bias:0",),
        labels={"0/3": 'the "one"\nand \\N'},
        groups=(Group(name="pair", members=("feature:0/3@1", "error:0@1")),),
    )
    found = parsed(GRAPH, notes)
    assert plain(found.get_node('"feature:0/3@1"')[0].get("label")) == 'the "one"\\nand \\N'
    assert found.get_node('"bias:0"')[0].get("style") == '"bold"'
    (cluster,) = found.get_subgraphs()
    assert cluster.get("label") == '"pair"'
    assert {plain(node.get_name()) for node in cluster.get_nodes()} >= {
        "feature:0/3@1",
        "error:0@1",
    }


def test_hostile_texts_stay_inside_their_quotes(tmp_path):
    tokens = ('"]; evil [', "\\", "a\nb\0")
    graph = make_graph(["token:1@0", "token:2@1", "logit:1@2"], {}, tokens=tokens)
    write_dot(graph, tmp_path / "a.dot")
    assert "\0" not in (tmp_path / "a.dot").read_text()
    found = parsed(graph)
    assert not found.get_node("evil")
    assert plain(found.get_node('"token:1@0"')[0].get("label")) == tokens[0]
    assert plain(found.get_node('"token:2@1"')[0].get("label")) == tokens[1]
