"""Influence is the power series of shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.sparse import csr_array

from graphs.analysis.influence import graph_shares, influence, resolved_share, row_shares
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from tests.graph_oracles import (
    dense_shares,
    dense_sizes,
    make_graph,
    random_graphs,
    series_influence,
)
from tests.tolerances import EXACT

NAMES = ["token:4@0", "feature:0/3@1", "feature:1/3@1", "logit:1@1"]
EDGES = {
    ("token:4@0", "feature:0/3@1"): -5.0,
    ("token:4@0", "feature:1/3@1"): 1.0,
    ("feature:0/3@1", "feature:1/3@1"): -3.0,
    ("feature:1/3@1", "logit:1@1"): 2.0,
}


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_influence_is_the_power_series(graph):
    share = dense_shares(dense_sizes(graph), graph.dropped_absolute)
    np.testing.assert_allclose(graph_shares(graph).toarray(), share, **EXACT)
    np.testing.assert_allclose(influence(graph), series_influence(share, graph.seed), **EXACT)


@given(random_graphs())
@settings(max_examples=50, deadline=None)
def test_no_more_influence_arrives_at_sources_than_targets_send(graph):
    ends = graph.nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS, NodeKind.ERROR)
    assert influence(graph)[ends].sum() <= graph.seed.sum() * (1 + 1e-12)


def test_influence_of_a_chain_by_hand():
    graph = make_graph(NAMES, EDGES, probabilities=[0.5])
    assert influence(graph).tolist() == [0.5, 0.375, 0.5, 0.0]


def test_what_a_row_lost_counts_in_its_sum():
    graph = make_graph(NAMES, EDGES, dropped={"feature:1/3@1": (0.0, 4.0)})
    assert influence(graph).tolist() == [0.5, 0.375, 1.0, 0.0]


def resolved(graph: AttributionGraph) -> float:
    return resolved_share(graph.nodes, graph.expanded, graph.seed, influence(graph))


def test_influence_at_unexpanded_features_is_unresolved():
    del (edges := dict(EDGES))["token:4@0", "feature:0/3@1"]
    graph = make_graph(NAMES, edges, unexpanded=("feature:0/3@1",))
    assert resolved(graph) == 0.25
    assert resolved(make_graph(NAMES, EDGES)) == 1.0
    assert resolved(make_graph(NAMES, EDGES, probabilities=[0.0])) == 1.0


@pytest.mark.parametrize("tiny", [5e-324, 1e-310])
def test_shares_of_tiny_rows_are_finite(tiny: float):
    share = row_shares(csr_array(np.array([[0.0, 0.0], [tiny, 0.0]])))
    assert share.toarray().tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_a_row_of_stored_zeros_has_no_shares():
    weights = csr_array((np.zeros(1), np.array([0]), np.array([0, 0, 1])), shape=(2, 2))
    assert row_shares(weights).toarray().tolist() == [[0.0, 0.0], [0.0, 0.0]]
