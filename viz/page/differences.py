"""Differences: inputs of the difference of two predictions.

    sizes[a, b] = sum_s |weights[a, s] − weights[b, s]|

Rows are linear in their target, so the row of a difference is the difference of the rows; sizes,
over the sources of the whole graph, are the denominators of shares of the difference.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.core.graph import AttributionGraph

MOST_TARGETS = 50  # with complete rows in a page
MOST_INTO_TARGETS = 50_000  # edges in addition to the strongest: 0.8 MB of a page


def whole_targets(graph: AttributionGraph, kept: Bool[ndarray, " node"]) -> Int[ndarray, " whole"]:
    """Targets, most probable first, whose inputs from these nodes all fit into a page."""
    targets = graph.target_rows()
    first = targets[np.argsort(-graph.seed[targets], kind="stable")][:MOST_TARGETS]
    rows = graph.weights[first]
    starts = np.concatenate([[0], np.cumsum(kept[rows.indices])])
    return first[starts[rows.indptr[1:]] <= MOST_INTO_TARGETS]


def difference_sizes(
    graph: AttributionGraph, targets: Int[ndarray, " whole"]
) -> Float[ndarray, "whole whole"]:
    """Absolute sum of the difference of each two targets' rows, over the whole graph."""
    rows = graph.weights[targets]
    sources = np.unique(rows.indices)
    dense = rows[:, sources].toarray().astype(np.float64)
    sizes = [np.abs(dense - row).sum(axis=1) for row in dense]
    return np.array(sizes).reshape(len(targets), len(targets))
