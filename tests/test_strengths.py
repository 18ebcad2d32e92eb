"""Strengths of nodes and edges against dense matrices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from graphs.analysis.strengths import strengths
from tests.graph_oracles import (
    dense_shares,
    dense_sizes,
    make_graph,
    random_graphs,
    series_influence,
)
from tests.tolerances import EXACT


@given(random_graphs())
@settings(max_examples=30, deadline=None)
def test_strengths_agree_with_dense_matrices(graph):
    share = dense_shares(dense_sizes(graph), graph.dropped_absolute)
    total = graph.seed.sum()
    influence = series_influence(share, graph.seed) / total
    arrived = influence + graph.seed / total
    found = strengths(graph)
    np.testing.assert_allclose(found.influence, influence, **EXACT)
    np.testing.assert_allclose(found.arrived, arrived, **EXACT)
    edges = found.target, found.source
    signs = np.sign(graph.weights.toarray()[edges])
    np.testing.assert_allclose(found.share, (share[edges] * signs), **EXACT)
    np.testing.assert_allclose(found.carried, share[edges] * arrived[found.target], **EXACT)


@given(random_graphs())
@settings(max_examples=30, deadline=None)
def test_leading_inputs_and_outputs_are_the_largest(graph):
    found = strengths(graph)
    sizes = abs(found.share)
    for leading, node, strength in (
        (found.inputs(2), found.target, sizes),
        (found.outputs(2), found.source, found.carried),
    ):
        for row in range(len(graph)):
            own = [e for e in np.flatnonzero(node == row).tolist() if strength[e] > 0]
            best = sorted(own, key=lambda edge: (-strength[edge], edge))[:2]
            assert leading.get(row, []) == best


def test_without_seed_nothing_has_influence():
    names = ["token:1@0", "logit:1@0"]
    found = strengths(make_graph(names, {("token:1@0", "logit:1@0"): 2.0}, [0.0]))
    assert found.arrived.tolist() == [0.0, 0.0]
    assert found.inputs(3) == {1: [0]}
    assert found.outputs(3) == {}
