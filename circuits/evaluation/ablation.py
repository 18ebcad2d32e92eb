"""Ablation of sets of the features that are active on a prompt, in the model.

Sets are masks over all active features, also those pruned from the graph.  The model runs freely.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import Outcomes, intervene
from circuits.progress import Progress, ignore_progress
from graphs.analysis.influence import influence
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.core.regime import Regime
from graphs.interventions.changes import Change, Intervention
from graphs.reports.opposing import total_effects


class Ablation:
    """The active features of a prompt, and the effect of ablating sets of them."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        active = experiment.local.features
        self.layer: Int[ndarray, " feat"] = active.on_host.layer
        self.nodes = [NodeId(NodeKind.FEATURE, *place) for place in active.places()]
        self.changes = [Change(node, 0.0) for node in self.nodes]
        self.order = self._ordered(influence(experiment.graph))  # most influence first

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def by_total_effect(self) -> Int[ndarray, " feat"]:
        """Features by total effect on the targets, weighted by the seed, largest first."""
        graph = self.experiment.graph
        targets = graph.target_rows().tolist()
        effects = [graph.seed[row] * total_effects(graph, row) for row in targets]
        return self._ordered(np.sum(effects, axis=0))

    def _ordered(self, values: Float[ndarray, " node"]) -> Int[ndarray, " feat"]:
        """Largest first; features that the graph does not have count as 0."""
        row = self.experiment.row
        of_features = np.zeros(len(self.nodes))
        of_features[row[row >= 0]] = values[row >= 0]
        return np.argsort(-of_features, kind="stable")

    def inside(self, graph: AttributionGraph) -> Bool[ndarray, " feat"]:
        """Mask of the features in a graph."""
        return np.array([node in graph for node in self.nodes])

    def named(self, names: Iterable[str]) -> Bool[ndarray, " feat"]:
        """Mask of the features with these names, as in `graphs.core.nodes`."""
        given = set(names)
        return np.array([str(node) in given for node in self.nodes])

    def random_set(
        self, chosen: Bool[ndarray, " feat"], generator: np.random.Generator
    ) -> Bool[ndarray, " feat"]:
        """A random mask with as many features of every layer."""
        found = np.zeros_like(chosen)
        found[random_like(self.layer, np.flatnonzero(chosen), generator)] = True
        return found

    def ablated(
        self, sets: list[Bool[ndarray, " feat"]], progress: Progress = ignore_progress
    ) -> Outcomes:
        """Outcomes of ablating each set, with the model running freely."""
        interventions = [
            Intervention(
                f"{int(some.sum())} features to 0",
                tuple(self.changes[number] for number in np.flatnonzero(some).tolist()),
            )
            for some in sets
        ]
        return intervene(self.experiment, interventions, Regime.FREE, progress=progress)

    def change(self, outcomes: Outcomes) -> Float[ndarray, " set"]:
        """Change of the targets' value, weighted by the seed."""
        return self._weighted(outcomes.measured)

    def predicted_change(self, outcomes: Outcomes) -> Float[ndarray, " set"]:
        """The same as the graph predicts it; nan where it does not."""
        return self._weighted(outcomes.predicted)

    def _weighted(self, changes: Float[ndarray, "set node"]) -> Float[ndarray, " set"]:
        graph = self.experiment.graph
        targets = graph.target_rows()
        return changes[:, targets] @ graph.seed[targets] / graph.seed[targets].sum()


def random_like(
    layer: Int[ndarray, " feat"], chosen: Int[ndarray, " some"], generator: np.random.Generator
) -> Int[ndarray, " some"]:
    """Random rows, as many of every layer as are chosen."""
    layers, counts = np.unique(layer[chosen], return_counts=True)
    drawn = [
        generator.choice(np.flatnonzero(layer == one), count, replace=False)
        for one, count in zip(layers, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *drawn])
