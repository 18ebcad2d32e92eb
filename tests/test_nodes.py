"""Nodes and their names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.core.nodes import NodeId, NodeKind, NodeTable
from tests.graph_oracles import make_table

NUMBERS = st.integers(0, 10**18 - 1)
FIELDS = {
    NodeKind.TOKEN: ("pos", "index"),
    NodeKind.POSITION: ("pos",),
    NodeKind.BIAS: ("layer",),
    NodeKind.FEATURE: ("layer", "pos", "index"),
    NodeKind.ERROR: ("layer", "pos"),
    NodeKind.LOGIT: ("pos", "index"),
    NodeKind.TARGET: ("pos", "index"),
    NodeKind.NORM: ("layer", "pos", "index"),
    NodeKind.ATTENTION_NORM: ("layer", "pos", "index"),
    NodeKind.GATE: ("layer", "pos", "index"),
    NodeKind.HEAD: ("layer", "pos", "index"),
}


@st.composite
def node_ids(draw: st.DrawFn) -> NodeId:
    kind = draw(st.sampled_from(NodeKind))
    return NodeId(kind, **{name: draw(NUMBERS) for name in FIELDS[kind]})


@given(node_ids())
@settings(max_examples=50, deadline=None)
def test_parsing_a_name_gives_the_node_back(node: NodeId):
    assert NodeId.parse(str(node)) == node


@given(node_ids(), node_ids())
@settings(max_examples=50, deadline=None)
def test_different_nodes_have_different_names(one: NodeId, other: NodeId):
    assert (one == other) == (str(one) == str(other))


def test_an_error_and_a_feature_of_layer_0_have_different_names():
    assert str(NodeId(NodeKind.ERROR, 5, 3)) == "error:5@3"
    assert str(NodeId(NodeKind.FEATURE, 0, 3, 5)) == "feature:0/5@3"


@pytest.mark.parametrize(
    "name",
    ["", "0_5_3", "feature:5@3", "feature:01/2@3", "token:-1@2", "token:4@7 ", "token:४@7"],
)
def test_any_other_spelling_is_refused_with_the_spellings_we_know(name: str):
    with pytest.raises(ValueError, match="expected feature:LAYER/INDEX@POS, error:LAYER@POS"):
        NodeId.parse(name)


def test_a_table_lists_its_nodes_in_order():
    names = ["token:4@0", "position:0", "bias:0", "feature:0/3@0", "error:0@0", "target:0@0"]
    table = make_table(names)
    assert [str(node) for node in table] == names
    assert [str(table[i]) for i in range(len(table))] == names
    assert [str(node) for node in table.take(np.array([3, 5]))] == [names[3], names[5]]


def test_a_table_knows_its_kinds_and_its_duplicates():
    table = make_table(["token:4@0", "bias:0", "error:0@1"])
    assert table.is_kind(NodeKind.ERROR, NodeKind.BIAS).tolist() == [False, True, True]
    assert table.is_kind().tolist() == [False, False, False]
    assert not table.has_duplicates()
    assert table.take(np.array([0, 1, 0])).has_duplicates()
    assert not table.take(np.array([], dtype=np.int64)).has_duplicates()


def test_a_node_with_a_field_that_its_kind_lacks_is_refused():
    columns = make_table(["token:4@0"]).columns()
    with pytest.raises(
        ValueError, match=r"Node 0 has the form token:\{index\}@\{pos\}.*got layer 2"
    ):
        NodeTable(**{**columns, "layer": np.array([2])})
    with pytest.raises(ValueError, match=r"got layer -1, pos -1, index 4"):
        NodeTable(**{**columns, "pos": np.array([-1])})
    with pytest.raises(ValueError, match=r"got layer -2"):
        NodeTable(**{**columns, "layer": np.array([-2])})
    with pytest.raises(ValueError, match="Unknown node kind 11"):
        NodeTable(**{**columns, "kind": np.array([11])})
