"""Measured mediation (`graphs.interventions.mediation`): the effect of a source in the model, with
the nodes between running and held.

Constrained runs: the blocks up to the source are frozen, those above run with recorded attention
patterns, as where predicted effects are compared with measured ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import intervene
from circuits.progress import Progress, ignore_progress
from graphs.core.regime import Regime
from graphs.interventions.mediation import Mediation, Route, interventions_of, least_effect


def mediations(
    experiment: Experiment, routes: Sequence[Route], progress: Progress = ignore_progress
) -> list[Mediation]:
    """How much of each effect goes through the nodes between, in the model and by the graph.

    Raises EditError for sources and nodes between that are no features.
    """
    made, through = interventions_of(experiment.graph, routes)
    changes: dict[int, tuple[float, float]] = {}  # of the target, measured and predicted
    for done, layer in enumerate(sorted(set(through))):
        progress("mediation", done, len(set(through)))
        rows = [row for row, last in enumerate(through) if last == layer]
        outcomes = intervene(experiment, [made[row] for row in rows], Regime.CONSTRAINED, layer)
        for place, row in enumerate(rows):
            node = routes[row // 2].target
            of_node = outcomes.measured[place, node], outcomes.predicted[place, node]
            changes[row] = float(of_node[0]), float(of_node[1])
    return [
        Mediation(
            effect=changes[2 * number][0],
            held=changes[2 * number + 1][0],
            predicted=changes[2 * number][1],
            predicted_held=changes[2 * number + 1][1],
            least=least_effect(experiment.graph, route.target),
        )
        for number, route in enumerate(routes)
    ]
