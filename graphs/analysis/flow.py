"""Flow: how much influence goes from one set of nodes to another, over all paths.

Influence is followed down from the targets.  It is counted where it first enters the upper set, and
from there where it first reaches the next one: the waypoints, the uppermost first, and finally the
lower set.  So nothing is counted twice, and a flow is a share of all influence on the graph's
targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from graphs.analysis.carrying import carry_up
from graphs.analysis.influence import carried, graph_shares, influence
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS


@dataclass(frozen=True, repr=False)
class Ends(Brief):
    """The sets between which paths or flow are measured, as masks of nodes."""

    sources: Bool[ndarray, " node"]
    targets: Bool[ndarray, " node"]
    through: tuple[Bool[ndarray, " node"], ...] = ()  # in order, from sources to targets

    @property
    def stages(self) -> tuple[Bool[ndarray, " node"], ...]:
        """The sets below the targets, from the top down."""
        return (*reversed(self.through), self.sources)


def inputs_to_targets(graph: AttributionGraph) -> Ends:
    """From all tokens and position embeddings to all targets of the graph."""
    return Ends(graph.nodes.is_kind(*INPUT_KINDS), graph.nodes.is_kind(*TARGET_KINDS))


def flow(graph: AttributionGraph, ends: Ends) -> float:
    """Share of all influence that goes from the sources to the targets."""
    total = float(graph.seed.sum())
    passed = entering(graph, ends.targets)
    for wanted in ends.stages:
        passed = _passed(graph, passed, wanted)
    return float(passed.sum()) / total if total > 0 else 0.0


def entering(graph: AttributionGraph, nodes: Bool[ndarray, " node"]) -> Float[ndarray, " node"]:
    """Influence at each of these nodes that passed through none of the others, in units of seed."""
    return _passed(graph, graph.seed, nodes)


def necessity(graph: AttributionGraph) -> Float[ndarray, " node"]:
    """Share of the influence of inputs that is lost without a node.

        reached[t]   = Σ_s share[t, s] · reached[s],   1 at inputs
        necessity[n] = (influence[n] + seed[n]) · reached[n] / Σ seed · reached

    0 everywhere if no input has influence.
    """
    totals = graph.row_totals()
    arrived = influence(graph) + graph.seed
    inputs = graph.nodes.is_kind(*INPUT_KINDS).astype(np.float64)
    reached = carry_up(inputs, graph.weights, totals)
    total = float(graph.seed @ reached)
    return arrived * reached / total if total > 0 else np.zeros_like(arrived)


def path_lengths(graph: AttributionGraph) -> Float[ndarray, " length"]:
    """Share of all influence that reaches inputs along paths of 1, 2, … edges.

    The shares sum to the replacement score of a graph whose other influence ends at errors.
    Source: path-length influence in "Circuit tracing: revealing computational graphs in language
    models" (2025).
    """
    shares, inputs = graph_shares(graph), graph.nodes.is_kind(*INPUT_KINDS)
    passed = graph.seed / (float(graph.seed.sum()) or 1.0)
    found: list[float] = []
    while np.any(passed := passed @ shares):  # the graph has no cycles
        found.append(float(passed[inputs].sum()))
    return np.array(found)


def _passed(
    graph: AttributionGraph, start: Float[ndarray, " node"], wanted: Bool[ndarray, " node"]
) -> Float[ndarray, " node"]:
    """Influence from `start` at each wanted node that passed through no other wanted node."""
    totals = graph.row_totals()
    arrived = carried(graph.weights, totals, start, ends=wanted) + start
    return np.where(wanted, arrived, 0.0)
