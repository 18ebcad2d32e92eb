"""Collapsed graphs: nothing is lost, and what cannot be ordered is refused."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings

from graphs.analysis.influence import graph_shares, influence
from graphs.analysis.scores import scores
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import INPUT_KINDS, NodeKind
from graphs.groups.collapse import CyclicGroups, collapse
from tests.graph_oracles import make_graph, random_graphs

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def pairs(graph: AttributionGraph) -> dict[str, np.ndarray]:
    """Features of one layer, two by two: they never make a cycle."""
    found: dict[str, np.ndarray] = {}
    for layer in range(4):
        rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & (graph.nodes.layer == layer))
        for number in range(0, len(rows) - 1, 2):
            found[f"{layer}, {number}"] = rows[number : number + 2]
    return found


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_groups_lose_no_influence(graph: AttributionGraph):
    assume(graph.seed.sum() > 0)
    found = collapse(graph, pairs(graph))
    every = (influence(graph) + graph.seed) / graph.seed.sum()
    for name, members, arrived in zip(found.names, found.members, found.arrived, strict=True):
        # Features of one layer do not feed each other, so nothing is inner.
        assert arrived == pytest.approx(every[members].sum(), abs=1e-12), name
    assert sorted(np.concatenate(found.members).tolist()) == list(range(len(graph)))
    assert np.all(found.flow.indices < edge_targets(found.flow))
    assert np.all(np.abs(found.net.toarray()) <= found.flow.toarray() + 1e-12)
    whole = scores(graph)
    assert found.scores.replacement == pytest.approx(whole.replacement)
    assert found.scores.completeness == pytest.approx(whole.completeness)


@settings(max_examples=50, deadline=None)
@given(random_graphs())
def test_what_flows_inside_a_group_is_counted_once(graph: AttributionGraph):
    """Everything between inputs and outputs made one: inputs have what they had."""
    assume(graph.seed.sum() > 0)
    inner = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    assume(len(inner) > 1)
    found = collapse(graph, {"all": inner})
    every = (influence(graph) + graph.seed) / graph.seed.sum()
    for members, arrived in zip(found.members, found.arrived, strict=True):
        if graph.nodes.is_kind(*INPUT_KINDS, NodeKind.ERROR, NodeKind.BIAS)[members[0]]:
            assert arrived == pytest.approx(every[members[0]], abs=1e-12)
    shares, place = graph_shares(graph).toarray(), found.names.index("all")
    entered = every @ shares - every[inner] @ shares[inner]
    assert found.arrived[place] == pytest.approx(entered[inner].sum(), abs=1e-12)
    assert found.scores.replacement == pytest.approx(scores(graph).replacement)


def chain() -> AttributionGraph:
    names = ["token:1@1", "feature:0/1@1", "feature:1/1@1", "feature:2/1@1", "logit:3@2"]
    edges = {
        ("token:1@1", "feature:0/1@1"): 2.0,
        ("feature:0/1@1", "feature:1/1@1"): 1.0,
        ("feature:1/1@1", "feature:2/1@1"): -1.0,
        ("feature:2/1@1", "logit:3@2"): 3.0,
        ("feature:0/1@1", "logit:3@2"): -1.0,
    }
    return make_graph(names, edges)


def test_opposite_weights_cancel_in_the_net_flow():
    found = collapse(chain(), {"both": np.array([1, 2]), "end": np.array([3])})
    end, both = found.names.index("logit:3@2"), found.names.index("both")
    assert found.flow[end, both] == pytest.approx(0.25)
    assert found.net[end, both] == pytest.approx(-0.25)
    assert found.net[found.names.index("end"), both] == pytest.approx(-0.75)


def test_groups_that_feed_each_other_are_refused():
    with pytest.raises(CyclicGroups, match=r"'ends' → 'feature:1/1@1' → 'ends': split one of them"):
        collapse(chain(), {"ends": np.array([1, 3])})
    with pytest.raises(ValueError, match="feature:0/1@1 is in several groups"):
        collapse(chain(), {"a": np.array([1, 2]), "b": np.array([1])})


def test_no_cycle_is_named_that_is_not_there():
    drawn = nx.DiGraph([(0, 1), (1, 2)])
    assert nx.is_directed_acyclic_graph(drawn)
    assert len(collapse(chain(), {"upper": np.array([2, 3])})) == 4
