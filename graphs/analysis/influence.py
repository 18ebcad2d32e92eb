"""Influence of each node on the targets over all paths, by shares and without sign.

    share[t, s] = |weights[t, s]| / (sum_s |weights[t, s]| + dropped_absolute[t])
    influence   = seed·share + seed·share² + …  =  seed·(1 − share)⁻¹ − seed

Nodes are in topological order, so share is strictly lower triangular and the series is one back
substitution: exact, with no iteration count and no tolerance.  Shares of a row sum to at most 1,
so the influence that has arrived at a set of nodes bounds all that they can pass on.

Source: "Circuit tracing: revealing computational graphs in language models" (2025), appendix on
graph pruning; the term for dropped edges is ours and is 0 for imported graphs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.carrying import carry_down
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.nodes import NodeKind, NodeTable


def row_shares(
    weights: csr_array, dropped_absolute: Float[ndarray, " node"] | float = 0.0
) -> csr_array:
    """Absolute weights as shares of the row's absolute sum, in float64.

    >>> row_shares(csr_array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [1.0, -3.0, 0.0]])).toarray()
    array([[0.  , 0.  , 0.  ],
           [1.  , 0.  , 0.  ],
           [0.25, 0.75, 0.  ]])
    """
    sizes = np.abs(weights.data, dtype=np.float64)
    totals = row_sizes(weights) + dropped_absolute
    # Divided, not multiplied by 1 / total, which overflows for totals below 1e-308.
    sizes /= np.repeat(np.where(totals > 0, totals, 1.0), np.diff(weights.indptr))
    return csr_array((sizes, weights.indices, weights.indptr), shape=weights.shape)


def graph_shares(graph: AttributionGraph) -> csr_array:
    """Row shares of a graph; the sum of a row includes what was dropped from it."""
    return row_shares(graph.weights, graph.dropped_absolute)


def influence(graph: AttributionGraph) -> Float[ndarray, " node"]:
    """Influence of every node on the graph's targets, weighted by `graph.seed`."""
    return carried(graph.weights, graph.row_totals(), graph.seed)


def influence_shares(
    graph: AttributionGraph, reached: Float[ndarray, " node"] | None = None
) -> Float[ndarray, " node"]:
    """Influence and seed of every node, as a share of all seed; `reached` is known influence."""
    reached = influence(graph) if reached is None else reached
    return (reached + graph.seed) / (float(graph.seed.sum()) or 1.0)


def edge_influence(graph: AttributionGraph, arrived: Float[ndarray, " node"]) -> csr_array:
    """Influence through each edge, without sign, given the influence that arrived at its target."""
    flow = graph_shares(graph)
    flow.data *= np.repeat(arrived, np.diff(flow.indptr))
    return flow


def carried(
    weights: csr_array,
    totals: Float[ndarray, " node"],
    seed: Float[ndarray, " node"],
    ends: Bool[ndarray, " node"] | None = None,
) -> Float[ndarray, " node"]:
    """Seed propagated down all paths, without the seed itself.

    Nodes in `ends` pass nothing on, not even seed of their own.

    >>> weights = csr_array([[0.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    >>> carried(weights, np.array([0.0, 2.0, 4.0]), np.array([0.0, 0.0, 1.0]))
    array([1.  , 0.75, 0.  ])
    """
    start = seed.astype(np.float64) if ends is None else np.where(ends, 0.0, seed)
    return carry_down(start, weights, totals, ends)


def resolved_share(
    nodes: NodeTable,
    expanded: Bool[ndarray, " node"],
    seed: Float[ndarray, " node"],
    reached: Float[ndarray, " node"],
) -> float:
    """Share of influence that has not ended at features which were not expanded.

    The rest, unresolved influence, bounds how much further rows can change any node's influence.
    """
    unresolved = nodes.is_kind(NodeKind.FEATURE, NodeKind.HEAD) & ~expanded
    total = float(seed.sum())
    return 1.0 - float(reached[unresolved].sum()) / total if total > 0 else 1.0


def error_influence_share(nodes: NodeTable, reached: Float[ndarray, " node"]) -> float:
    """Share of the influence at inputs, biases and errors that is at errors; 0 if there is none."""
    ends = nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS, NodeKind.ERROR)
    at_ends = float(reached[ends].sum())
    return float(reached[nodes.is_kind(NodeKind.ERROR)].sum()) / at_ends if at_ends > 0 else 0.0


def ranks(group: Int[ndarray, " item"], strength: Float[ndarray, " item"]) -> Int[ndarray, " item"]:
    """Rank of each item within its group: 0 is the strongest; ties in order.

    >>> ranks(np.array([7, 4, 7, 7]), np.array([1.0, 2.0, 5.0, 1.0]))
    array([1, 0, 0, 2])
    """
    order = np.lexsort((-strength, group))
    _, start, size = np.unique(group[order], return_index=True, return_counts=True)
    result = np.empty(len(group), dtype=np.int64)
    result[order] = np.arange(len(group)) - np.repeat(start, size)
    return result
