"""The graph checks itself once, and keeps the sum of every row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from graphs.core.graph import AttributionGraph, row_sizes, row_sums, select_edges
from tests.graph_oracles import make_graph, random_graphs
from tests.tolerances import EXACT

NAMES = ["token:4@0", "feature:0/3@1", "error:0@1", "logit:1@1"]
EDGES = {
    ("token:4@0", "feature:0/3@1"): 2.0,
    ("feature:0/3@1", "logit:1@1"): -3.0,
    ("error:0@1", "logit:1@1"): 1.0,
}


@pytest.fixture
def graph() -> AttributionGraph:
    return make_graph(NAMES, EDGES, output_tokens={1: (" a",), 3: (" b",)})


def test_nodes_are_found_by_name_and_by_identity(graph: AttributionGraph):
    assert graph.find("error:0@1") == 2
    assert graph.find(graph.nodes[3]) == 3
    assert graph.token_text(1) == " the"
    assert len(graph) == 4
    with pytest.raises(KeyError, match="error:9@1 is not in this graph of 4 nodes"):
        graph.find("error:9@1")


def _with(graph: AttributionGraph, node: int, **columns: int) -> AttributionGraph:
    table = graph.nodes.columns()
    for name, value in columns.items():
        table[name] = table[name].copy()
        table[name][node] = value
    return replace(graph, nodes=type(graph.nodes)(**table))


def test_parts_that_do_not_fit_are_refused(graph: AttributionGraph):
    targets = graph.provenance.targets
    cases = {
        "points backwards": lambda: replace(graph, weights=csr_array(graph.weights.T)),
        "4 x 4": lambda: replace(graph, weights=csr_array((3, 3))),
        "names 2 targets, the nodes have 1": lambda: replace(
            graph, provenance=graph.provenance.model_copy(update={"targets": targets * 2})
        ),
        "same id": lambda: _with(make_graph(["token:4@0", *NAMES], EDGES), 0, pos=0),
        "its position must be below 3": lambda: _with(graph, 1, pos=3),
        "its layer must be below 2": lambda: _with(graph, 1, layer=2),
        "output_tokens has a row outside": lambda: replace(graph, output_tokens={4: ("a",)}),
        "cannot be negative": lambda: replace(graph, dropped_absolute=np.full(4, -1.0)),
        "Only logit and target nodes have seed": lambda: replace(graph, seed=np.ones(4)),
    }
    for text, build in cases.items():
        with pytest.raises(ValueError, match=text):
            build()


def _weights(graph: AttributionGraph, data: list[float]) -> csr_array:
    old = graph.weights
    return csr_array((np.array(data), old.indices, old.indptr), shape=old.shape)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused(graph: AttributionGraph, bad: float):
    with pytest.raises(ValueError, match="not finite"):
        replace(graph, weights=_weights(graph, [1.0, bad, 1.0]))
    with pytest.raises(ValueError, match="not finite"):
        replace(graph, dropped=np.array([0.0, bad, 0.0, 0.0]))


def test_a_row_whose_sum_overflows_is_refused(graph: AttributionGraph):
    with pytest.raises(ValueError, match="not finite"):
        replace(graph, weights=_weights(graph, [1.0, 1.5e308, 1.5e308]))


def test_weights_come_sorted_and_summed_and_the_callers_stay_as_they_were(graph: AttributionGraph):
    weights = csr_array(
        (np.array([5.0, 1.0, 2.0]), np.array([2, 0, 2]), np.array([0, 0, 0, 0, 3])), shape=(4, 4)
    )
    ours = replace(graph, weights=weights).weights
    assert ours.indices.tolist() == [0, 2]
    assert ours.data.tolist() == [1.0, 7.0]
    assert weights.indices.tolist() == [2, 0, 2]


def test_an_empty_graph_is_a_graph():
    empty = make_graph([], {}, probabilities=[])
    assert len(empty.take(np.array([], dtype=np.int64))) == 0


def test_taking_nodes_takes_their_targets_tokens_and_edges(graph: AttributionGraph):
    part = graph.take(np.array([1, 3]))
    assert [str(node) for node in part.nodes] == ["feature:0/3@1", "logit:1@1"]
    assert part.output_tokens == {0: (" a",), 1: (" b",)}
    assert part.weights.toarray().tolist() == [[0, 0], [-3, 0]]
    assert part.dropped.tolist() == [2.0, 1.0]
    assert part.dropped_absolute.tolist() == [2.0, 1.0]
    assert graph.take(np.array([0, 1])).provenance.targets == ()
    with pytest.raises(ValueError, match="rising order"):
        graph.take(np.array([3, 1]))


@given(random_graphs(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_rows_keep_their_sums_and_their_dtype_when_nodes_and_edges_go(graph, random):
    kept = np.array([random.random() < 0.6 for _ in range(graph.weights.nnz)], dtype=bool)
    nodes = np.array([i for i in range(len(graph)) if random.random() < 0.6], dtype=np.int64)
    part = graph.with_weights(select_edges(graph.weights, kept)).take(nodes)
    sums = row_sums(graph.weights) + graph.dropped
    sizes = row_sizes(graph.weights) + graph.dropped_absolute
    np.testing.assert_allclose(row_sums(part.weights) + part.dropped, sums[nodes], **EXACT)
    np.testing.assert_allclose(
        row_sizes(part.weights) + part.dropped_absolute, sizes[nodes], **EXACT
    )
    assert part.weights.dtype == graph.weights.dtype


def test_rows_of_float32_are_added_in_float64():
    weights = csr_array(np.array([[1e8, 1.0, -1e8]], dtype=np.float32))
    assert row_sums(weights).tolist() == [1.0]


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_row_sums_do_not_depend_on_how_many_are_added_together(
    at_once: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("graphs.core.graph.EDGES_AT_ONCE", at_once)
    weights = csr_array(np.array([[0.0, 0, 0], [2, -1, 0], [0, 0, 0], [1, -3, 0.5], [4, 0, 0]]))
    assert row_sums(weights).tolist() == [0, 1, 0, -1.5, 4]
    assert row_sizes(weights).tolist() == [0, 3, 0, 4.5, 4]


@given(random_graphs())
@settings(max_examples=20, deadline=None)
def test_taking_everything_changes_nothing(graph):
    same = graph.take(np.arange(len(graph)))
    assert np.array_equal(same.dropped, graph.dropped)
    assert np.array_equal(same.dropped_absolute, graph.dropped_absolute)
    assert (same.weights != graph.weights).nnz == 0
