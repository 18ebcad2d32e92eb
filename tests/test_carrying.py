"""Carrying along all paths is the solution of two triangular systems."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from graphs.analysis import carrying
from graphs.analysis.carrying import carry_down, carry_up
from graphs.core.graph import AttributionGraph
from tests.graph_oracles import dense_shares, dense_sizes, random_graphs
from tests.tolerances import EXACT

Matrix = NDArray[np.float64]


def layers(rng: np.random.Generator) -> csr_array:
    """Weights of four layers of ten nodes, without edges in a layer, and two rows alone."""
    weights = rng.standard_normal((42, 42))
    layer = np.repeat(np.arange(6), [10, 10, 10, 10, 1, 1])
    weights[layer[:, None] <= layer] = 0.0
    return csr_array(weights)


def down(start: Matrix, share: Matrix, ends: NDArray[np.bool_]) -> Matrix:
    """Row by row, the last one first."""
    reached = np.zeros_like(start)
    for row in range(len(share))[::-1]:
        passed = start[row] if ends[row] else start[row] + reached[row]
        reached += np.multiply.outer(share[row], passed)
    return reached


@pytest.mark.parametrize("shape", [(42,), (42, 3)])
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_carried_down_in_layers_is_what_is_carried_row_by_row(shape, signed):
    rng = np.random.default_rng(0)
    weights, start = layers(rng), rng.standard_normal(shape)
    totals, ends = abs(weights).sum(axis=1) + rng.random(42), rng.random(42) < 0.3
    dense = weights.toarray() / np.where(totals > 0, totals, 1)[:, None]
    share = dense if signed else abs(dense)
    found = carry_down(start, weights, totals, ends, signed)
    np.testing.assert_allclose(found, down(start, share, ends), **EXACT)


def test_layers_are_taken_in_one_step():
    found = carrying._runs(layers(np.random.default_rng(0)))
    assert found == [(10, 20), (20, 30), (30, 40), (40, 41), (41, 42)]


@pytest.mark.parametrize("at_once", [30, 10**6])
def test_runs_have_no_edges_among_them(monkeypatch: pytest.MonkeyPatch, at_once: int):
    monkeypatch.setattr(carrying, "EDGES_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    weights = csr_array(np.tril(rng.standard_normal((60, 60)) * (rng.random((60, 60)) < 0.4), -1))
    runs = carrying._runs(weights)
    for first, last in runs:
        assert abs(weights[first:last, first:last]).sum() == 0
    covered = [row for first, last in runs for row in range(first, last)]
    assert set(np.flatnonzero(np.diff(weights.indptr))) <= set(covered)
    assert len(covered) == len(set(covered))


@given(random_graphs(), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_carrying_up_and_down_are_each_others_adjoint(graph: AttributionGraph, number: int):
    rng = np.random.default_rng(number)
    above, below = rng.standard_normal((2, len(graph)))
    totals = graph.row_totals()
    share = dense_shares(dense_sizes(graph), graph.dropped_absolute)
    up = carry_up(below, graph.weights, totals)
    np.testing.assert_allclose(up, np.linalg.solve(np.eye(len(graph)) - share, below), **EXACT)
    reached = above + carry_down(above, graph.weights, totals)
    assert reached @ below == pytest.approx(above @ up, rel=1e-9, abs=1e-11)
