"""Replacement and completeness scores of a graph.

    arrived[t]   = influence[t] + seed[t]
    replacement  = influence of inputs / (influence of inputs + influence of errors)
    completeness = sum_t (1 − sum_{s in errors} share[t, s]) · arrived[t] / sum_t arrived[t]
                 = 1 − influence of errors / sum_t arrived[t]

Inputs are token and position nodes.  Influence that ends at biases, or that is unresolved, is
neither input nor error: replacement ignores it, and completeness counts it as explained.  Both are
from 0 to 1, and 0 where the denominator is 0.

Source: "Circuit tracing: revealing computational graphs in language models" (2025); the same as
circuit-tracer's for a full graph.  For a part of a graph two conventions are in use, which give
different numbers: see `scores`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from graphs.analysis.influence import carried
from graphs.core.graph import AttributionGraph, row_sizes, select_edges
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind


@dataclass(frozen=True)
class Scores:
    """Replacement and completeness, from 0 to 1."""

    replacement: float  # of the influence that ends at inputs or errors, the share at inputs
    completeness: float  # of the influence that arrives at nodes, the share not from errors


def scores(
    graph: AttributionGraph,
    kept: Bool[ndarray, " node"] | None = None,
    convention: Literal["absorbed", "renormalised"] = "absorbed",
) -> Scores:
    """Replacement and completeness of a graph, or of the nodes `kept` in it (None: all).

    Inputs and targets are always kept.  The other nodes are treated as follows.

    absorbed      A dropped feature or bias becomes an error: all its outputs count as error,
                  whether or not its layer and position have an error node.  Errors count as
                  errors, kept or not, and so do dropped weights (`dropped_absolute`).  So a
                  part never scores better than the full graph, both scores only rise when more is
                  kept, and a pruned graph scores like its nodes in the full graph.
    renormalised  Dropped features and biases vanish, and so does `dropped_absolute`; rows are
                  renormalised.  An error is kept if it has an edge to a kept node other than
                  an error, whatever `kept` says of it.

    "absorbed" is the convention of EleutherAI's attribute and of Neuronpedia's score worker, except
    that they add signed weights into the error node, where opposite signs cancel and hide what
    was dropped; we add absolute weights.  "renormalised" is that of Neuronpedia's page, where
    `kept` are the pinned nodes.  On a full graph with nothing dropped the two agree.

    Raises ValueError if `kept` does not have one entry per node.
    """
    part = np.ones(len(graph), dtype=bool) if kept is None else kept
    if len(part) != len(graph):
        raise ValueError(f"kept has {len(part)} entries for {len(graph)} nodes.")
    if convention == "absorbed":
        return _absorbed(graph, part)
    if convention == "renormalised":
        return _renormalised(graph, part)
    raise ValueError(f"convention must be absorbed or renormalised, got {convention!r}.")


def _absorbed(graph: AttributionGraph, kept: Bool[ndarray, " node"]) -> Scores:
    always = graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)
    errors = graph.nodes.is_kind(NodeKind.ERROR) | ~(kept | always)
    totals = graph.row_totals()
    arrived = carried(graph.weights, totals, graph.seed, ends=errors) + graph.seed
    inputs = graph.nodes.is_kind(*INPUT_KINDS)
    return scores_from(arrived, inputs, errors, lost_influence(graph, arrived, errors))


def _renormalised(graph: AttributionGraph, kept: Bool[ndarray, " node"]) -> Scores:
    errors = graph.nodes.is_kind(NodeKind.ERROR)
    source, counts = graph.weights.indices, np.diff(graph.weights.indptr)
    linked = np.zeros(len(graph), dtype=bool)
    linked[source[np.repeat(kept & ~errors, counts)]] = True
    part = np.where(errors, linked, kept | graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS))
    weights = select_edges(graph.weights, np.repeat(part, counts) & part[source])
    arrived = carried(weights, row_sizes(weights), graph.seed) + graph.seed
    return scores_from(arrived, graph.nodes.is_kind(*INPUT_KINDS), errors, 0.0)


def lost_influence(
    graph: AttributionGraph, arrived: Float[ndarray, " node"], errors: Bool[ndarray, " node"]
) -> float:
    """The influence that goes to dropped weights."""
    totals = graph.row_totals()
    lost = np.divide(graph.dropped_absolute, totals, out=np.zeros_like(totals), where=totals > 0)
    return float(np.sum((arrived * lost)[~errors]))


def scores_from(
    arrived: Float[ndarray, " part"],
    inputs: Bool[ndarray, " part"],
    errors: Bool[ndarray, " part"],
    lost: float,
) -> Scores:
    """Scores from the influence at each part and the influence `lost`, which counts as error."""
    at_inputs = float(arrived[inputs].sum())
    at_errors = float(arrived[errors].sum()) + lost
    anywhere = float(arrived.sum()) + lost
    return Scores(
        replacement=at_inputs / (at_inputs + at_errors) if at_inputs > 0 else 0.0,
        completeness=1.0 - at_errors / anywhere if anywhere > 0 else 0.0,
    )
