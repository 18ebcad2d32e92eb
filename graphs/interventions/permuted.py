"""Permuted edges: the null of what a graph predicts.

In every row the weights are exchanged among the sources that have one, so that rows keep their
sums and sizes and say nothing about which source does what.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from graphs.core.graph import AttributionGraph, edge_targets


def with_permuted_edges(
    graph: AttributionGraph, generator: np.random.Generator
) -> AttributionGraph:
    """The same graph with the weights of each row in a random order.

    Rows of responses stay as they are.
    """
    weights = graph.weights
    order = np.lexsort((generator.random(weights.nnz), edge_targets(weights)))
    data = weights.data[order]
    permuted = csr_array((data, weights.indices, weights.indptr), shape=weights.shape)
    return replace(graph, weights=permuted, imported=None)
