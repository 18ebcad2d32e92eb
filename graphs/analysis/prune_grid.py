"""Pruning at a grid of thresholds: sizes and scores of the pruned graphs.

The same numbers as `len`, `nnz` and `scores` of `prune` at each pair of thresholds.  A lower
threshold keeps a subset of what a higher one keeps, so each point starts from the edges of the one
above it, and most points are cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.analysis.influence import graph_shares, influence
from graphs.analysis.leading import leading
from graphs.analysis.prune import always_kept, connected, edge_scores
from graphs.analysis.scores import Scores, scores_from
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import INPUT_KINDS, NodeKind


@dataclass(frozen=True)
class PruneGrid:
    """Sizes and scores at each threshold of nodes (rows) and of edges (columns)."""

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
    """Sizes and scores at each pair of thresholds; both are rising, from 0 to 1."""
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
    arrived = influence(graph) + graph.seed
    scores = list(edge_scores(graph.weights, graph.row_totals(), arrived))
    return (leading(lambda: scores, threshold) for threshold in thresholds)


@dataclass(frozen=True)
class _Flow:
    """Edges in the order in which influence passes through them, the farthest from inputs first."""

    edge: Int[ndarray, " edge"]  # place among the weights
    source: Int[ndarray, " edge"]
    target: Int[ndarray, " edge"]
    share: Float[ndarray, " edge"]
    depth: Int[ndarray, " edge"]  # of the target; edges of one depth are independent
    has_input: Bool[ndarray, " node"]

    @classmethod
    def of(cls, graph: AttributionGraph) -> _Flow:
        depth, target = _depths(graph), edge_targets(graph.weights)
        order = np.argsort(-depth[target], kind="stable")
        target = target[order]
        share = graph_shares(graph).data[order]
        has_input = graph.row_totals() > 0
        return cls(order, graph.weights.indices[order], target, share, depth[target], has_input)

    def scores(self, graph: AttributionGraph, left: Int[ndarray, " left"]) -> Scores:
        """Scores of a graph with only these edges; weights that rows lost count as error."""
        source, target, share = self.source[left], self.target[left], self.share[left]
        count, errors = len(graph), graph.nodes.is_kind(NodeKind.ERROR)
        arrived = graph.seed.astype(np.float64)
        for part in np.split(np.arange(len(left)), 1 + np.flatnonzero(np.diff(self.depth[left]))):
            passed = np.where(errors, 0.0, arrived)[target[part]] * share[part]
            arrived = arrived + np.bincount(source[part], passed, count)
        lost = np.maximum(1.0 - np.bincount(target, share, count), 0.0)
        inputs = graph.nodes.is_kind(*INPUT_KINDS)
        return scores_from(
            arrived, inputs, errors, float((arrived * lost)[self.has_input & ~errors].sum())
        )


def _depths(graph: AttributionGraph) -> Int[ndarray, " node"]:
    """Length of the longest path to each node; sources of a node have a lower depth."""
    depth = np.zeros(len(graph), dtype=np.int64)
    start, source = graph.weights.indptr, graph.weights.indices
    for row in np.flatnonzero(np.diff(start)).tolist():
        depth[row] = 1 + depth[source[start[row] : start[row + 1]]].max()
    return depth
