"""Pruning: the nodes and edges that carry most of the influence.

    nodes:  the most influential ones, up to `node_threshold` of the total influence, and always
            tokens, positions and targets
    edges:  score[t, s] = share[t, s] · (influence[t] + seed[t]); the highest ones, up to
            `edge_threshold` of the total score
    then    features, heads, errors and biases without an outgoing edge and features and heads
            without an incoming edge are removed until there are none; what was not expanded needs
            no incoming edge, since its row is unknown

Ties are broken by node order, and by row, then column for edges.  The kept part is as
small as possible, so threshold 0 keeps only what is always kept, and threshold 1 everything that
has any influence.  Weights that rows lose are added to `dropped` and `dropped_absolute`.

Source: "Circuit tracing: revealing computational graphs in language models" (2025), appendix on
graph pruning, with thresholds 0.8 and 0.98 and errors kept; circuit-tracer prunes errors and keeps
all nodes tied at a threshold.  Both measure edges on the kept nodes only (`edge_scores="kept"`);
OpenMOSS measures on the full graph; so do we, since a lower threshold then always gives a subset
of what a higher one gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import carried, influence
from graphs.analysis.leading import leading
from graphs.analysis.select import SelectionError
from graphs.core.attended import edge_keys
from graphs.core.graph import (
    AttributionGraph,
    edge_targets,
    row_parts,
    row_sizes,
    select_edges,
)
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind


@dataclass(frozen=True)
class PruneSettings:
    """How much to keep.  Raises ValueError for a threshold outside 0 to 1."""

    node_threshold: float = 0.8  # share of all influence, as in the methods paper
    edge_threshold: float = 0.98  # share of all edge scores, as in the methods paper
    keep_errors: bool = False  # error nodes are never pruned, as in the methods paper
    edge_scores: Literal["full", "kept"] = "full"  # measured on the full graph or on kept nodes
    patterns: bool = False  # effects through attention patterns carry influence too

    def __post_init__(self) -> None:
        for name in ("node_threshold", "edge_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")
        if self.edge_scores not in ("full", "kept"):
            raise ValueError(f"edge_scores must be full or kept, got {self.edge_scores!r}.")


DEFAULTS = PruneSettings()


def prune(graph: AttributionGraph, settings: PruneSettings = DEFAULTS) -> AttributionGraph:
    """The part of a graph that carries most of the influence on its targets.

    Raises SelectionError for `patterns` without effects through them.

    The settings are recorded in the header under `settings["prune"]`.  Nodes keep their order.
    With `patterns`, what makes heads look where they look is ranked and kept as edges are, and
    takes half of their influence.  The report is removed: it is of the full graph.
    With `edge_scores="full"` the result is monotone in both thresholds, with "kept" in the edge
    threshold only.
    """
    if settings.patterns:
        nodes, graph = _through_patterns(graph, settings)
        edges = np.ones(graph.weights.nnz, dtype=bool)
    else:
        nodes, edges = kept_by(graph, settings)
    pruned = graph.with_weights(select_edges(graph.weights, edges)).take(np.flatnonzero(nodes))
    recorded = {**graph.provenance.settings, "prune": asdict(settings)}
    header = pruned.provenance.model_copy(update={"settings": recorded, "report": None})
    return replace(pruned, provenance=header)


def _through_patterns(
    graph: AttributionGraph, settings: PruneSettings
) -> tuple[Bool[ndarray, " node"], AttributionGraph]:
    """The nodes that are kept, and the graph with the edges and effects that are.

    Half of a head node's influence goes to what it carries, half to what makes it look there: its
    effects through patterns are scaled to the absolute sum of its row.

    Raises SelectionError if the graph has no effects through patterns.
    """
    if graph.score_weights is None:
        raise SelectionError(
            "The graph has no effects through attention patterns: trace it with --attention scores."
        )
    sizes, totals = row_sizes(graph.score_weights), graph.row_totals()
    scale = np.divide(totals, sizes, out=np.zeros_like(totals), where=sizes > 0)
    scaled = graph.score_weights.copy()
    scaled.data = scaled.data * scale[edge_targets(scaled)]
    joined = replace(graph, weights=graph.weights + scaled, imported=None)
    nodes, edges = kept_by(joined, settings)
    kept = _keys(select_edges(joined.weights, edges))
    parts = (
        select_edges(one, np.isin(_keys(one), kept)) for one in (graph.weights, graph.score_weights)
    )
    weights, scores = parts
    return nodes, replace(graph.with_weights(weights), score_weights=scores)


def _keys(weights: csr_array) -> Int[ndarray, " edge"]:
    return edge_keys(edge_targets(weights), weights.indices)


def kept_by(
    graph: AttributionGraph, settings: PruneSettings
) -> tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]:
    """Masks of the nodes and the stored weights that `prune` keeps."""
    nodes = _leading_nodes(graph, settings)
    edges = _leading_edges(graph, nodes, settings)
    return _connected(graph, nodes, edges, settings.keep_errors)


def cumulative_influence(graph: AttributionGraph) -> Float[ndarray, " node"]:
    """Share of all influence up to and including each node, the most influential node first.

    Small values are the important nodes: those up to 0.8 are kept at threshold 0.8, and nodes
    without influence have 1.  This is what Neuronpedia's files call `influence`.
    """
    order, fraction = _ranked(influence(graph))
    result = np.empty_like(fraction)
    result[order] = fraction
    return result


def _leading_nodes(graph: AttributionGraph, settings: PruneSettings) -> Bool[ndarray, " node"]:
    always, scores = graph.nodes.is_kind(*always_kept(settings.keep_errors)), influence(graph)
    return always | leading(lambda: [scores], settings.node_threshold)


def _leading_edges(
    graph: AttributionGraph, nodes: Bool[ndarray, " node"], settings: PruneSettings
) -> Bool[ndarray, " edge"]:
    weights = graph.weights
    inside = np.repeat(nodes, np.diff(weights.indptr)) & nodes[weights.indices]
    measured = select_edges(weights, inside) if settings.edge_scores == "kept" else weights
    totals = row_sizes(measured) + graph.dropped_absolute
    arrived = carried(measured, totals, graph.seed) + graph.seed
    found = leading(lambda: edge_scores(measured, totals, arrived), settings.edge_threshold)
    if settings.edge_scores == "full":
        return found & inside
    inside[inside] = found
    return inside


def edge_scores(
    weights: csr_array, totals: Float[ndarray, " node"], arrived: Float[ndarray, " node"]
) -> Iterator[Float[ndarray, " part"]]:
    """Share of each edge times the influence and seed of its target, in batches of rows."""
    for rows, start, end in row_parts(weights):
        counts = weights.indptr[rows + 1] - weights.indptr[rows]
        sizes, sums = np.abs(weights.data[start:end], dtype=np.float64), totals[rows]
        shares = sizes / np.repeat(np.where(sums > 0, sums, 1.0), counts)
        yield shares * np.repeat(arrived[rows], counts)


def _connected(
    graph: AttributionGraph,
    nodes: Bool[ndarray, " node"],
    edges: Bool[ndarray, " edge"],
    keep_errors: bool,
) -> tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]:
    left = np.flatnonzero(edges)
    target = np.searchsorted(graph.weights.indptr, left, side="right") - 1
    nodes, stays = connected(graph, nodes, target, graph.weights.indices[left], keep_errors)
    kept = np.zeros_like(edges)
    kept[left[stays]] = True
    return nodes, kept


def connected(
    graph: AttributionGraph,
    nodes: Bool[ndarray, " node"],
    target: Int[ndarray, " left"],
    source: Int[ndarray, " left"],
    keep_errors: bool,
) -> tuple[Bool[ndarray, " node"], Int[ndarray, " kept"]]:
    """The largest subset of these nodes and edges in which every node has the edges that it needs.

    Edges are returned as places in `target` and `source`.
    """
    always = graph.nodes.is_kind(*always_kept(keep_errors))
    needs_input = graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.HEAD) & graph.expanded
    left = np.arange(len(target))
    while True:
        has_output, has_input = np.zeros_like(nodes), np.zeros_like(nodes)
        has_output[source], has_input[target] = True, True
        stays = nodes & (always | (has_output & (has_input | ~needs_input)))
        if np.array_equal(stays, nodes):
            return nodes, left
        nodes, still = stays, stays[source] & stays[target]
        left, target, source = left[still], target[still], source[still]


def always_kept(keep_errors: bool) -> tuple[NodeKind, ...]:
    """Kinds of nodes that are never pruned."""
    errors = (NodeKind.ERROR,) if keep_errors else ()
    return (*INPUT_KINDS, *TARGET_KINDS, *errors)


def _ranked(
    scores: Float[ndarray, " item"],
) -> tuple[Int[ndarray, " item"], Float[ndarray, " item"]]:
    """Order by falling score, and the share of the sum up to each; 1 if all scores are 0."""
    order = np.argsort(-scores, kind="stable")
    upto = np.cumsum(scores[order])
    return order, upto / upto[-1] if np.any(scores) else np.ones_like(upto)
