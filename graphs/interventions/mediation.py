"""Mediation: how much of the effect of one node on another goes through the nodes between.

    share = 1 − (effect with the nodes between held) / effect

Both effects are of ablating the source: once everything above it runs, once the nodes between are
held at the activation that they have on the prompt.  1 means that the source acts through them
alone, 0 that they carry nothing; where other paths work against them it may be outside these.  So a
direct effect of the model, whose share is 0, is told from an edge that stands for a step.

Source: the natural indirect effect over the total effect (Pearl, "Direct and indirect effects",
2001; Vig et al., "Causal mediation analysis for interpreting neural NLP", arXiv 2004.12265).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.interventions.changes import Change, Intervention
from graphs.interventions.edits import EditError

LEAST_EFFECT = 1e-3  # of the target's own value; for smaller effects no share is computed


@dataclass(frozen=True)
class Route:
    """Rows of a graph: sources, the nodes between, and the target."""

    sources: tuple[int, ...]
    between: tuple[int, ...]
    target: int


@dataclass(frozen=True)
class Mediation:
    """Changes of the target's value when the sources are ablated."""

    effect: float  # measured
    held: float  # measured, with the nodes between held
    predicted: float  # by the graph
    predicted_held: float
    least: float  # effects below it have no share

    @property
    def share(self) -> float | None:
        """Share of the measured effect that goes through the nodes between; None if unknown."""
        return self._share(self.effect, self.held)

    @property
    def predicted_share(self) -> float | None:
        """The same as the graph says it."""
        return self._share(self.predicted, self.predicted_held)

    def _share(self, effect: float, held: float) -> float | None:
        known = np.isfinite(effect) and np.isfinite(held) and abs(effect) > self.least
        return 1 - held / effect if known else None


def interventions_of(
    graph: AttributionGraph, routes: Sequence[Route]
) -> tuple[list[Intervention], list[int]]:
    """For each route two interventions, without and with the nodes between held.

    Also the last block that is frozen in each: the highest of the sources, in both.  Raises
    EditError for sources and nodes between that are no features.
    """
    made: list[Intervention] = []
    through: list[int] = []
    for route in routes:
        _require_features(graph, route)
        ablated = tuple(Change(graph.nodes[row], 0.0) for row in route.sources)
        held = tuple(
            Change(graph.nodes[row], 0.0, float(graph.nodes.activation[row]))
            for row in route.between
            if row not in route.sources
        )
        named = ", ".join(str(change.node) for change in ablated)
        made += [
            Intervention(f"ablate {named}", ablated),
            Intervention(f"ablate {named}, hold what is between", ablated + held),
        ]
        through += [made[-2].last_layer] * 2
    return made, through


def least_effect(graph: AttributionGraph, row: int) -> float:
    """The effect on a node below which its share is not computed."""
    value = float(graph.nodes.value[row])
    return LEAST_EFFECT * abs(value) if np.isfinite(value) else 0.0


def _require_features(graph: AttributionGraph, route: Route) -> None:
    for row in (*route.sources, *route.between):
        if graph.nodes.kind[row] != NodeKind.FEATURE:
            raise EditError(
                f"{graph.nodes[row]} cannot be ablated or held: give features as sources and "
                "between."
            )
