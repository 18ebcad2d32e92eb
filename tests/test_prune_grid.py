"""A grid of thresholds has the numbers of pruning at each of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.analysis.prune import PruneSettings, prune
from graphs.analysis.prune_grid import prune_grid
from graphs.analysis.scores import scores
from tests.graph_oracles import make_graph, random_graphs
from tests.tolerances import EXACT

NODES, EDGES = (0.0, 0.3041, 0.7919, 0.9013, 1.0), (0.1037, 0.5077, 0.9797, 1.0)
CLOSE = {"rel": EXACT["rtol"], "abs": EXACT["atol"]}


@given(random_graphs(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_every_point_has_the_counts_and_scores_of_the_pruned_graph(graph, keep_errors):
    grid = prune_grid(graph, NODES, EDGES, keep_errors)
    for i, node in enumerate(NODES):
        for j, edge in enumerate(EDGES):
            pruned = prune(graph, PruneSettings(node, edge, keep_errors))
            scored = scores(pruned)
            assert (grid.n_nodes[i, j], grid.n_edges[i, j]) == (len(pruned), pruned.weights.nnz)
            assert grid.replacement[i, j] == pytest.approx(scored.replacement, **CLOSE)
            assert grid.completeness[i, j] == pytest.approx(scored.completeness, **CLOSE)


def test_graphs_without_edges_have_a_grid():
    grid = prune_grid(make_graph(["token:1@0", "logit:1@0"], {}), NODES, EDGES)
    assert grid.n_nodes.tolist() == [[2] * 4] * 5
    assert not grid.n_edges.any()
    assert not grid.replacement.any()
