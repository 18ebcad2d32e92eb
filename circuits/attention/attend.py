"""A graph with its attention taken apart: the heads of its edges, and its looks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from circuits.attention.heads import heads
from circuits.attention.looks import looks, with_looks
from circuits.interventions.experiment import Experiment
from graphs.analysis.prune import DEFAULTS, kept_by
from graphs.attention.edge_heads import EdgeHeads
from graphs.core.attended import KEPT_LOOKS, EdgeParts
from graphs.core.graph import AttributionGraph

MOST_EDGES = 100_000  # of which all are taken apart; of more, those that pruning keeps
PARTS_AT_ONCE = 2**26  # numbers


def attend(
    experiment: Experiment, count: int = KEPT_LOOKS, known: EdgeHeads | None = None
) -> AttributionGraph:
    """The graph with the heads of its edges and its `count` strongest looks.

    Of a graph of more than `MOST_EDGES` edges, only those that pruning keeps are taken apart.
    `known` are the heads of all edges, in their order, if they have been found already.
    """
    graph = experiment.graph
    found, misses = list[EdgeParts](), [0.0]
    for some in _some_edges(graph, sum(b.n_heads for b in experiment.local.frozen.blocks)):
        part = heads(experiment, some) if known is None else known.take(some)
        found.append(part.kept())
        misses.append(part.miss)
    checked = graph.with_checks(edge_heads_max=max(misses))
    return with_looks(checked, looks(experiment, count), EdgeParts.joined(found))


def _some_edges(graph: AttributionGraph, n_heads: int) -> list[Int[ndarray, " edge"]]:
    """Edges that are taken apart together, in order."""
    edges = np.arange(graph.weights.nnz)
    if len(edges) > MOST_EDGES:
        edges = np.flatnonzero(kept_by(graph, DEFAULTS)[1])
    return np.array_split(edges, 1 + len(edges) * n_heads // PARTS_AT_ONCE)
