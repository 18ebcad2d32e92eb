"""Flow: how much influence goes from one set of nodes to another, over all paths.

Influence is followed down from the targets.  What enters the upper set is counted where it enters
first, and from there until it first meets the next set: the waypoints, the uppermost first, and
at last the lower set.  So nothing is counted twice, and a flow is a share of all influence on the
graph's targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from graphs.analysis.influence import carried, graph_shares, influence
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS


@dataclass(frozen=True)
class Ends:
    """From where to where, as masks of nodes."""

    sources: Bool[ndarray, " node"]
    targets: Bool[ndarray, " node"]
    through: tuple[Bool[ndarray, " node"], ...] = ()  # in order, from sources to targets

    @property
    def stages(self) -> tuple[Bool[ndarray, " node"], ...]:
        """What is met below the targets, one set after the other."""
        return (*reversed(self.through), self.sources)


def whole(graph: AttributionGraph) -> Ends:
    """From all tokens and positions to all that the graph explains."""
    return Ends(graph.nodes.is_kind(*INPUT_KINDS), graph.nodes.is_kind(*TARGET_KINDS))


def flow(graph: AttributionGraph, ends: Ends) -> float:
    """Share of all influence that goes from the sources to the targets."""
    total = float(graph.seed.sum())
    passed = entering(graph, ends.targets)
    for wanted in ends.stages:
        passed = _passed(graph, passed, wanted)
    return float(passed.sum()) / total if total > 0 else 0.0


def entering(graph: AttributionGraph, nodes: Bool[ndarray, " node"]) -> Float[ndarray, " node"]:
    """Influence at each of these nodes that came past none of the others, in units of the seed."""
    return _passed(graph, graph.seed, nodes)


def necessity(graph: AttributionGraph) -> Float[ndarray, " node"]:
    """Share of the influence that inputs have which is lost without a node.

        reached[t]   = Σ_s share[t, s] · reached[s],   1 at inputs
        necessity[n] = (influence[n] + seed[n]) · reached[n] / Σ seed · reached

    0 everywhere where no input has influence.
    """
    totals = row_sizes(graph.weights) + graph.dropped_absolute
    arrived = influence(graph) + graph.seed
    reached = graph.nodes.is_kind(*INPUT_KINDS).astype(np.float64)
    start = graph.weights.indptr
    for row in np.flatnonzero(np.diff(start)):
        edges = slice(start[row], start[row + 1])
        sizes = np.abs(graph.weights.data[edges].astype(np.float64))
        reached[row] = sizes @ reached[graph.weights.indices[edges]] / (totals[row] or 1.0)
    total = float(graph.seed @ reached)
    return arrived * reached / total if total > 0 else np.zeros_like(arrived)


def path_lengths(graph: AttributionGraph) -> Float[ndarray, " length"]:
    """Share of all influence that inputs have along paths of 1, 2, … edges.

    Where they are short, the answer is direct.  The shares sum to the replacement of a graph whose
    other influence ends at errors.  Source: path-length influence in "Circuit tracing: revealing
    computational graphs in language models" (2025).
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
    """What of the mass that starts at nodes first meets each wanted one."""
    totals = row_sizes(graph.weights) + graph.dropped_absolute
    arrived = carried(graph.weights, totals, start, ends=wanted) + start
    return np.where(wanted, arrived, 0.0)
