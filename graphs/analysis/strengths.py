"""Strengths: influence of each node and each edge of a graph.

    share[t, s]   = weights[t, s] / (sum_s |weights[t, s]| + dropped_absolute[t])
    influence     = influence of the node / sum of seed
    arrived       = influence + seed / sum of seed
    carried[t, s] = |share[t, s]| · arrived[t]

All are shares from 0 to 1; only `share` has a sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import graph_shares, influence, ranks
from graphs.core.graph import AttributionGraph, edge_targets


@dataclass(frozen=True)
class Strengths:
    """Influence of each node and each edge; edges are in the order of the weights."""

    influence: Float[ndarray, " node"]  # share of all influence that passes through the node
    arrived: Float[ndarray, " node"]  # the same, and for targets their share of the seed
    target: Int[ndarray, " edge"]  # row of the edge's target
    source: Int[ndarray, " edge"]  # row of the edge's source
    share: Float[ndarray, " edge"]  # signed weight over the absolute sum of the target's row
    carried: Float[ndarray, " edge"]  # share of all influence that passes through the edge

    def inputs(self, count: int) -> dict[int, list[int]]:
        """The edges with the largest shares into each node, by the node's row."""
        return _leading_edges(self.target, abs(self.share), count)

    def outputs(self, count: int) -> dict[int, list[int]]:
        """The edges that carry most influence out of each node, by the node's row."""
        return _leading_edges(self.source, self.carried, count)


def strengths(graph: AttributionGraph) -> Strengths:
    """Strengths of a graph; all 0 where no target has any seed."""
    total = float(graph.seed.sum()) or 1.0
    reached = influence(graph) / total
    arrived = reached + graph.seed / total
    share, target = graph_shares(graph), edge_targets(graph.weights)
    return Strengths(
        influence=reached,
        arrived=arrived,
        target=target,
        source=graph.weights.indices,
        share=share.data * np.sign(graph.weights.data),
        carried=share.data * arrived[target],
    )


def strongest(strength: Float[ndarray, " item"], count: int) -> Int[ndarray, " chosen"]:
    """The `count` strongest items, strongest first; ties in order.

    >>> strongest(np.array([1.0, 3.0, 2.0, 3.0]), 3)
    array([1, 3, 2])
    """
    return np.argsort(-strength, kind="stable")[:count]


def _leading_edges(
    node: Int[ndarray, " edge"], strength: Float[ndarray, " edge"], count: int
) -> dict[int, list[int]]:
    rank = ranks(node, strength)
    kept = np.flatnonzero((rank < count) & (strength > 0))
    result: dict[int, list[int]] = {}
    for edge in kept[np.argsort(rank[kept], kind="stable")].tolist():
        result.setdefault(int(node[edge]), []).append(edge)
    return result
