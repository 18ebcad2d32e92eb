"""Ablation: sets of the features that are active on a prompt, taken away in the model.

Sets are masks over all active features, whatever of them the graph still has.  The model runs
freely.
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
from graphs.analysis.opposing import total_effects
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.core.regime import Regime
from graphs.interventions.changes import Change, Intervention


class Ablation:
    """The features of a prompt, and what it does to take some of them away."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        active = experiment.features
        self.layer: Int[ndarray, " feat"] = active.layer.cpu().numpy()
        self.nodes = [NodeId(NodeKind.FEATURE, *place) for place in active.places()]
        self.changes = [Change(node, 0.0) for node in self.nodes]
        self.order = self._ordered(influence(experiment.graph))  # most influence first

    def __len__(self) -> int:
        return len(self.nodes)

    @cached_property
    def raising(self) -> Int[ndarray, " feat"]:
        """Features by what they do for the targets over all paths, weighted by the seed."""
        graph = self.experiment.graph
        targets = graph.target_rows().tolist()
        effects = [graph.seed[row] * total_effects(graph, row) for row in targets]
        return self._ordered(np.sum(effects, axis=0))

    def _ordered(self, values: Float[ndarray, " node"]) -> Int[ndarray, " feat"]:
        """Largest first; what the graph does not have counts 0."""
        row = self.experiment.row.cpu().numpy()
        of_features = np.zeros(len(self.nodes))
        of_features[row[row >= 0]] = values[row >= 0]
        return np.argsort(-of_features, kind="stable")

    def inside(self, graph: AttributionGraph) -> Bool[ndarray, " feat"]:
        """Those that are in a graph."""
        return np.array([node in graph for node in self.nodes])

    def among(self, names: Iterable[str]) -> Bool[ndarray, " feat"]:
        """Those of these names, as in `graphs.core.nodes`."""
        wanted = set(names)
        return np.array([str(node) in wanted for node in self.nodes])

    def alike(
        self, chosen: Bool[ndarray, " feat"], generator: np.random.Generator
    ) -> Bool[ndarray, " feat"]:
        """As many of every layer, at random."""
        found = np.zeros_like(chosen)
        found[drawn_alike(self.layer, np.flatnonzero(chosen), generator)] = True
        return found

    def left(
        self, kept: list[Bool[ndarray, " feat"]], progress: Progress
    ) -> Float[ndarray, " set"]:
        """Change of the targets' value, weighted by the seed, with only some features left."""
        return self.change(self.ablated([~some for some in kept], progress))

    def ablated(
        self, sets: list[Bool[ndarray, " feat"]], progress: Progress = ignore_progress
    ) -> Outcomes:
        """Sets of features, each ablated together, the model running freely."""
        made = [
            Intervention(
                f"{int(some.sum())} features to 0",
                tuple(self.changes[number] for number in np.flatnonzero(some).tolist()),
            )
            for some in sets
        ]
        return intervene(self.experiment, made, Regime.FREE, progress=progress)

    def change(self, outcomes: Outcomes) -> Float[ndarray, " set"]:
        """Of the targets' value, weighted by the seed."""
        graph = self.experiment.graph
        targets = graph.target_rows()
        return outcomes.measured[:, targets] @ graph.seed[targets] / graph.seed[targets].sum()


def drawn_alike(
    layer: Int[ndarray, " feat"], chosen: Int[ndarray, " some"], generator: np.random.Generator
) -> Int[ndarray, " some"]:
    """As many rows of every layer as are chosen, at random among all of that layer."""
    layers, counts = np.unique(layer[chosen], return_counts=True)
    drawn = [
        generator.choice(np.flatnonzero(layer == one), count, replace=False)
        for one, count in zip(layers, counts, strict=True)
    ]
    return np.concatenate([np.zeros(0, dtype=np.int64), *drawn])
