"""Grid: how much of a graph pruning leaves at many thresholds, and what that explains.

The same numbers as `len`, `nnz` and `scores` of `prune` at each pair of thresholds.  A lower
threshold keeps a part of what a higher one keeps, so each point begins with what the one above it
left, and nearly all points are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.analysis.influence import carried, graph_shares, influence
from graphs.analysis.leading import leading
from graphs.analysis.prune import always_kept, connected, edge_scores
from graphs.analysis.scores import Scores, shared_out
from graphs.core.graph import AttributionGraph, edge_targets, row_sizes
from graphs.core.nodes import INPUT_KINDS, NodeKind


@dataclass(frozen=True)
class PruneGrid:
    """What is left at each threshold of nodes (rows) and of edges (columns)."""

    n_nodes: Int[ndarray, "at_nodes at_edges"]
    n_edges: Int[ndarray, "at_nodes at_edges"]
    replacement: Float[ndarray, "at_nodes at_edges"]
    completeness: Float[ndarray, "at_nodes at_edges"]


def prune_grid(
    graph: AttributionGraph,
    node_thresholds: Sequence[float],
    edge_thresholds: Sequence[float],
    keep_errors: bool = False,
) -> PruneGrid:
    """What pruning leaves at each pair of thresholds; both are rising, from 0 to 1."""
    shape = (len(node_thresholds), len(edge_thresholds))
    found = PruneGrid(np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape), np.zeros(shape))
    flow = _Flow.of(graph)
    leads = [mask[flow.edge] for mask in _leading_edges(graph, edge_thresholds)]
    reached, always = influence(graph), graph.nodes.is_kind(*always_kept(keep_errors))
    widest = np.arange(len(flow.edge))
    for i in reversed(range(len(node_thresholds))):
        nodes = always | leading(lambda: [reached], node_thresholds[i])
        left = widest[nodes[flow.source[widest]] & nodes[flow.target[widest]]]
        for j in reversed(range(len(edge_thresholds))):
            left = left[leads[j][left]]
            source, target = flow.source[left], flow.target[left]
            nodes, stays = connected(graph, nodes, target, source, keep_errors)
            left = left[stays]
            if j == len(edge_thresholds) - 1:
                widest = left
            scored = flow.scores(graph, left)
            found.n_nodes[i, j], found.n_edges[i, j] = nodes.sum(), len(left)
            found.replacement[i, j] = scored.replacement
            found.completeness[i, j] = scored.completeness
    return found


def _leading_edges(
    graph: AttributionGraph, thresholds: Sequence[float]
) -> Iterator[Bool[ndarray, " edge"]]:
    totals = row_sizes(graph.weights) + graph.dropped_absolute
    arrived = carried(graph.weights, totals, graph.seed) + graph.seed
    scores = list(edge_scores(graph.weights, totals, arrived))
    return (leading(lambda: scores, threshold) for threshold in thresholds)


@dataclass(frozen=True)
class _Flow:
    """Edges in the order in which influence goes along them, the farthest from inputs first."""

    edge: Int[ndarray, " edge"]  # place among the weights
    source: Int[ndarray, " edge"]
    target: Int[ndarray, " edge"]
    share: Float[ndarray, " edge"]
    depth: Int[ndarray, " edge"]  # of the target; edges into one depth do not feed each other
    fed: Bool[ndarray, " node"]  # whether anything feeds a node

    @classmethod
    def of(cls, graph: AttributionGraph) -> _Flow:
        depth, target = _depths(graph), edge_targets(graph.weights)
        order = np.argsort(-depth[target], kind="stable")
        target = target[order]
        share = graph_shares(graph).data[order]
        fed = row_sizes(graph.weights) + graph.dropped_absolute > 0
        return cls(order, graph.weights.indices[order], target, share, depth[target], fed)

    def scores(self, graph: AttributionGraph, left: Int[ndarray, " left"]) -> Scores:
        """Scores of a graph with only these edges: what rows lost counts as error."""
        source, target, share = self.source[left], self.target[left], self.share[left]
        count, errors = len(graph), graph.nodes.is_kind(NodeKind.ERROR)
        arrived = graph.seed.astype(np.float64)
        for part in np.split(np.arange(len(left)), 1 + np.flatnonzero(np.diff(self.depth[left]))):
            passed = np.where(errors, 0.0, arrived)[target[part]] * share[part]
            arrived = arrived + np.bincount(source[part], passed, count)
        lost = np.maximum(1.0 - np.bincount(target, share, count), 0.0)
        inputs = graph.nodes.is_kind(*INPUT_KINDS)
        return shared_out(
            arrived, inputs, errors, float((arrived * lost)[self.fed & ~errors].sum())
        )


def _depths(graph: AttributionGraph) -> Int[ndarray, " node"]:
    """Length of the longest path to each node: what feeds a node has a lower one."""
    depth = np.zeros(len(graph), dtype=np.int64)
    start, source = graph.weights.indptr, graph.weights.indices
    for row in np.flatnonzero(np.diff(start)).tolist():
        depth[row] = 1 + depth[source[start[row] : start[row + 1]]].max()
    return depth
