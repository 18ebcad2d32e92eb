"""Features whose activations differ between two prompts of one model.

Features are matched by index and aligned positions; a feature at a position without a counterpart
counts as inactive in the other prompt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from circuits.evaluation.ablation import random_like
from circuits.features.active import Places
from circuits.interventions.experiment import Experiment
from graphs.analysis.influence import influence_shares
from graphs.comparison.positions import align_prompts
from graphs.core.nodes import NodeId, NodeKind
from graphs.interventions.changes import Change, Intervention

LEAST_CHANGE = 1e-3  # relative change of an activation; less is rounding


class AlignedFeature(NamedTuple):
    """One feature at aligned positions; -1: no such position."""

    layer: int
    row: int  # of the layer's dictionary
    first: int
    second: int

    def node(self, side: int) -> NodeId | None:
        """Its node in one of the prompts."""
        pos = (self.first, self.second)[side]
        return None if pos < 0 else NodeId(NodeKind.FEATURE, self.layer, pos, self.row)


@dataclass(frozen=True)
class DifferingFeatures:
    """Features of two prompts; in pairs of numbers the first belongs to the first prompt."""

    places: tuple[AlignedFeature, ...]
    activation: Float[ndarray, "feat 2"]
    influence: Float[ndarray, "feat 2"]  # share in each graph, 0 if it lacks the feature

    def __len__(self) -> int:
        return len(self.places)

    @property
    def attribution(self) -> Float[ndarray, " feat"]:
        """Influence times relative difference: Σ influence · |a - b| / max(|a|, |b|)."""
        one, other = self.activation.T
        return self.influence.sum(1) * np.abs(one - other) / np.abs(self.activation).max(1)

    def swap(self, rows: Iterable[int], side: int) -> Intervention:
        """In one prompt, set these features to their activations in the other."""
        changes: list[Change] = []
        for row in rows:
            node = self.places[row].node(side)
            if node is not None:
                changes.append(Change(node, 0.0, float(self.activation[row, 1 - side])))
        what = f"{changes[0].node} to {changes[0].offset:g}" if len(changes) == 1 else ""
        return Intervention(
            what or f"{len(changes)} features as in the other prompt", tuple(changes)
        )

    def random_set(
        self, chosen: Int[ndarray, " some"], generator: np.random.Generator
    ) -> Int[ndarray, " some"]:
        """Random rows, as many of every layer as are chosen."""
        layer = np.array([place.layer for place in self.places], dtype=np.int64)
        return random_like(layer, chosen, generator)


def differing_features(first: Experiment, second: Experiment) -> DifferingFeatures:
    """Every feature that is active in either prompt, with another activation in the other."""
    both = first, second
    active = [one.local.features.places() for one in both]
    to_second = align_prompts(first.graph.provenance, second.graph.provenance)
    to_first = np.full(len(second.local.recording.prompt), -1)
    paired = np.flatnonzero(to_second >= 0)
    to_first[to_second[paired]] = paired
    places = sorted(
        {AlignedFeature(layer, row, pos, int(to_second[pos])) for layer, pos, row in active[0]}
        | {AlignedFeature(layer, row, int(to_first[pos]), pos) for layer, pos, row in active[1]}
    )
    places = [_without_prefix(place, both) for place in places]
    activation = np.stack([_activations(one, places, side) for side, one in enumerate(both)], 1)
    influence = np.stack([_influence(one, places, side) for side, one in enumerate(both)], 1)
    largest = np.abs(activation).max(1, initial=0.0)
    kept = np.flatnonzero(np.abs(activation[:, 0] - activation[:, 1]) > LEAST_CHANGE * largest)
    return DifferingFeatures(tuple(places[row] for row in kept), activation[kept], influence[kept])


def _without_prefix(place: AlignedFeature, both: tuple[Experiment, Experiment]) -> AlignedFeature:
    """Drop prefix positions, which have no features."""
    first, second = (one.local.recording.prompt.n_prefix for one in both)
    return place._replace(
        first=place.first if place.first >= first else -1,
        second=place.second if place.second >= second else -1,
    )


def _activations(
    experiment: Experiment, places: list[AlignedFeature], side: int
) -> Float[ndarray, " feat"]:
    """Activations in one prompt, 0 if inactive."""
    nodes = [place.node(side) for place in places]
    there = [row for row, node in enumerate(nodes) if node is not None]
    found = np.zeros(len(places))
    features = experiment.local.features
    found[there] = features.recorded(Places.of([node for node in nodes if node is not None]))
    return found


def _influence(
    experiment: Experiment, places: list[AlignedFeature], side: int
) -> Float[ndarray, " feat"]:
    graph, arrived = experiment.graph, influence_shares(experiment.graph)
    nodes = (place.node(side) for place in places)
    return np.array(
        [arrived[graph.find(node)] if node is not None and node in graph else 0.0 for node in nodes]
    )
