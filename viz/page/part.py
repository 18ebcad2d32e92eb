"""Part: the part of a graph in a page, and the thresholds at which pruning drops its members.

    before[n] = share of all influence at more influential nodes
    before[e] = share of all edge scores at edges with higher scores

As in `graphs.prune`, a node or edge is kept if its `before` is below the threshold, and at
threshold 1 if it has any influence.  All numbers refer to the whole graph.  In addition to the
strongest edges a part has every edge from its nodes to the targets, so that differences of
predictions are exact; those without influence come last, with `before` 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import ranks
from graphs.analysis.prune import PruneSettings, cumulative_influence, prune
from graphs.analysis.strengths import Strengths, strengths, strongest
from graphs.core.graph import AttributionGraph, row_sizes, row_sums, select_edges
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS
from graphs.naming.names import Names
from viz.page.differences import difference_sizes, whole_targets

MOST_NODES, ALLOWED_NODES = 2000, 10_000  # default and maximum
MOST_EDGES = 50_000
_ROUNDING = 1e-9  # of sums of shares
_NEVER = 2.0  # `before` of edges that no threshold keeps
_MOST_RANKED = 20_000_000  # edges; larger graphs are pruned first
_PREPRUNING = PruneSettings(node_threshold=0.99, edge_threshold=0.98, keep_errors=True)


@dataclass(frozen=True)
class Part:
    """Rows and edges of a graph."""

    graph: AttributionGraph
    strengths: Strengths
    rows: Int[ndarray, " kept"]  # ascending
    node_before: Float[ndarray, " kept"]
    edges: Int[ndarray, " edge"]  # strongest first
    edge_before: Float[ndarray, " edge"]
    source: Int[ndarray, " edge"]  # index among the rows
    target: Int[ndarray, " edge"]
    n_nodes: int  # of the given graph
    n_edges: int
    prepruned: bool  # whether `graph` is not the whole graph
    exact_nodes: float  # thresholds up to which pruning the part equals pruning the graph
    exact_edges: float
    whole: Int[ndarray, " whole"]  # targets with all edges from the rows, as indices among these
    differences: Float[
        ndarray, "whole whole"
    ]  # absolute sum of the difference of two of their rows

    @cached_property
    def names(self) -> Names:
        """Names of the graph's nodes."""
        return Names(self.graph)


def part(graph: AttributionGraph, most_nodes: int = MOST_NODES) -> Part:
    """The strongest nodes, with all inputs and targets, and the strongest edges among them.

    Raises ValueError for more than ALLOWED_NODES.
    """
    if not 1 <= most_nodes <= ALLOWED_NODES:
        raise ValueError(f"A page holds from 1 to {ALLOWED_NODES} nodes, got {most_nodes}.")
    given, prepruned = graph, graph.weights.nnz > _MOST_RANKED
    if prepruned:
        graph = _prepruned(graph)
    measured = strengths(graph)
    always = graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)
    first = np.where(always, np.inf, measured.arrived)
    rows = np.sort(strongest(first, max(most_nodes, int(always.sum()))))
    number = np.full(len(graph), -1)
    number[rows] = np.arange(len(rows))
    whole = whole_targets(graph, number >= 0)
    edges, weaker = _held(measured, number >= 0, whole)
    before = _before(measured.carried, np.append(edges, weaker))
    node_before = _nodes_before(graph)
    return Part(
        graph=graph,
        strengths=measured,
        rows=rows,
        node_before=node_before[rows],
        edges=edges,
        edge_before=np.where(measured.carried[edges] > 0, before[: len(edges)], _NEVER),
        source=number[measured.source[edges]],
        target=number[measured.target[edges]],
        n_nodes=len(given),
        n_edges=given.weights.nnz,
        prepruned=prepruned,
        exact_nodes=0.0
        if prepruned
        else float(node_before[number < 0].min(initial=1.0) - _ROUNDING),
        exact_edges=0.0 if prepruned else float(before[len(edges) :].min(initial=1.0) - _ROUNDING),
        whole=number[whole],
        differences=difference_sizes(given, _rows_in(given, graph)[whole] if prepruned else whole),
    )


def _prepruned(graph: AttributionGraph) -> AttributionGraph:
    """The part with nearly all influence, and all edges from its nodes to targets."""
    pruned = prune(graph, _PREPRUNING)
    rows = _rows_in(graph, pruned)
    weights = pruned.weights
    targets = pruned.target_rows()
    into = np.repeat(np.isin(np.arange(len(pruned)), targets), np.diff(weights.indptr))
    found = graph.weights[rows[targets]][:, rows].tocoo()
    restored = csr_array((found.data, (targets[found.row], found.col)), shape=weights.shape)
    weights = csr_array(select_edges(weights, ~into) + restored)
    return replace(
        pruned,
        weights=weights,
        dropped=graph.dropped[rows] + row_sums(graph.weights)[rows] - row_sums(weights),
        dropped_absolute=np.maximum(
            graph.dropped_absolute[rows] + row_sizes(graph.weights)[rows] - row_sizes(weights), 0.0
        ),
    )


def _rows_in(graph: AttributionGraph, part: AttributionGraph) -> Int[ndarray, " part"]:
    return np.array([graph.find(node) for node in part.nodes], dtype=np.int64)


def _nodes_before(graph: AttributionGraph) -> Float[ndarray, " node"]:
    upto = cumulative_influence(graph)
    order = np.argsort(upto, kind="stable")
    before = np.empty_like(upto)
    before[order] = np.concatenate([[0.0], upto[order][:-1]])[: len(upto)]
    return before


def _held(
    measured: Strengths, inside: Bool[ndarray, " node"], whole: Int[ndarray, " whole"]
) -> tuple[Int[ndarray, " held"], Int[ndarray, " weaker"]]:
    """Edges of the part, strongest first, and the strongest edge between its nodes that is not."""
    into = np.zeros(len(inside), dtype=bool)
    into[whole] = True
    within = inside[measured.source] & inside[measured.target]
    held = within & into[measured.target] & (measured.share != 0)
    among = np.flatnonzero(within & (measured.carried > 0))
    scores = measured.carried[among]
    if len(among) > MOST_EDGES:  # the others need no order
        least = np.partition(scores, -MOST_EDGES)[-MOST_EDGES]
        top = np.flatnonzero(scores >= least)
        held[among[top[strongest(scores[top], MOST_EDGES)]]] = True
    else:
        held[among] = True
    edges, left = np.flatnonzero(held), among[~held[among]]
    weaker = left[[measured.carried[left].argmax()]] if len(left) else left
    return edges[strongest(measured.carried[edges], len(edges))], weaker


def _before(
    scores: Float[ndarray, " edge"], edges: Int[ndarray, " some"]
) -> Float[ndarray, " some"]:
    """Share of the sum of all scores that is before each of these edges, the highest score first.

    Only scores are sorted, not edges, which takes a tenth of the time.
    """
    rising, values = np.sort(scores), scores[edges]
    upto = np.cumsum(rising[::-1])
    total = float(upto[-1]) if len(upto) and upto[-1] > 0 else 1.0
    first = len(scores) - np.searchsorted(rising, values, side="right")
    last = len(scores) - np.searchsorted(rising, values, side="left")
    tied = (last - first > 1) & (values > 0)
    if np.any(tied):  # the first ones come first
        among = np.flatnonzero(np.isin(scores, values[tied]))
        place = np.zeros(len(scores), dtype=np.int64)
        _, group = np.unique(scores[among], return_inverse=True)
        place[among] = ranks(group, np.zeros(len(among)))
        first += place[edges]
    return (upto[first] - values) / total
