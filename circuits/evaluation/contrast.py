"""Differing: features that fire otherwise in two prompts of one model.

Features are brought together by their number and by positions that stand for each other; where a
position has no partner in the other prompt, what fires there does not fire in the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from circuits.evaluation.ablation import drawn_alike
from circuits.interventions.experiment import Experiment
from graphs.analysis.influence import influence_shares
from graphs.comparison.positions import align_prompts
from graphs.core.nodes import NodeId, NodeKind
from graphs.interventions.changes import Change, Intervention

LEAST_CHANGE = 1e-3  # of an activation; less is rounding


class Place(NamedTuple):
    """One feature at positions that stand for each other; -1: there is none."""

    layer: int
    row: int  # of the layer's dictionary
    first: int
    second: int

    def node(self, side: int) -> NodeId | None:
        """Its node in one of the prompts."""
        pos = (self.first, self.second)[side]
        return None if pos < 0 else NodeId(NodeKind.FEATURE, self.layer, pos, self.row)


@dataclass(frozen=True)
class Differing:
    """Features of two prompts; of every pair of numbers the first is the first prompt's."""

    places: tuple[Place, ...]
    activation: Float[ndarray, "feat 2"]
    influence: Float[ndarray, "feat 2"]  # shares of all in either graph, 0 where it is not in it

    def __len__(self) -> int:
        return len(self.places)

    @property
    def stake(self) -> Float[ndarray, " feat"]:
        """Influence that is passed on otherwise: Σ influence · |a - b| / max(|a|, |b|)."""
        one, other = self.activation.T
        return self.influence.sum(1) * np.abs(one - other) / np.abs(self.activation).max(1)

    def swap(self, rows: Iterable[int], side: int) -> Intervention:
        """In one of the prompts these features fire as in the other."""
        changes: list[Change] = []
        for row in rows:
            node = self.places[row].node(side)
            if node is not None:
                changes.append(Change(node, 0.0, float(self.activation[row, 1 - side])))
        what = f"{changes[0].node} to {changes[0].offset:g}" if len(changes) == 1 else ""
        return Intervention(what or f"{len(changes)} features as in the other", tuple(changes))

    def alike(
        self, chosen: Int[ndarray, " some"], generator: np.random.Generator
    ) -> Int[ndarray, " some"]:
        """As many of every layer, at random."""
        layer = np.array([place.layer for place in self.places], dtype=np.int64)
        return drawn_alike(layer, chosen, generator)


def differing(first: Experiment, second: Experiment) -> Differing:
    """Every feature that is active in either prompt and fires otherwise in the other."""
    both = first, second
    there = align_prompts(first.graph.provenance, second.graph.provenance)
    back = np.full(len(second.recording.prompt), -1)
    paired = np.flatnonzero(there >= 0)
    back[there[paired]] = paired
    places = sorted(
        {Place(layer, row, pos, int(there[pos])) for layer, pos, row in first.features.places()}
        | {Place(layer, row, int(back[pos]), pos) for layer, pos, row in second.features.places()}
    )
    places = [_without_context(place, both) for place in places]
    activation = np.stack([_activations(one, places, side) for side, one in enumerate(both)], 1)
    influence = np.stack([_influence(one, places, side) for side, one in enumerate(both)], 1)
    largest = np.abs(activation).max(1, initial=0.0)
    kept = np.flatnonzero(np.abs(activation[:, 0] - activation[:, 1]) > LEAST_CHANGE * largest)
    return Differing(tuple(places[row] for row in kept), activation[kept], influence[kept])


def _without_context(place: Place, both: tuple[Experiment, Experiment]) -> Place:
    """Context-only positions have no features."""
    first, second = (one.recording.prompt.context_only for one in both)
    return place._replace(
        first=place.first if place.first >= first else -1,
        second=place.second if place.second >= second else -1,
    )


def _activations(experiment: Experiment, places: list[Place], side: int) -> Float[ndarray, " feat"]:
    """Activations in one prompt, of features that are not active too; places are in layer order."""
    found, device = np.zeros(len(places)), experiment.frozen.device
    there = [(row, place.node(side)) for row, place in enumerate(places)]
    known = [(row, node) for row, node in there if node is not None]
    for layer, some in groupby(known, lambda one: places[one[0]].layer):
        rows, nodes = zip(*some, strict=True)
        pos, index = (torch.tensor([getattr(n, c) for n in nodes]) for c in ("pos", "index"))
        recorded = experiment.features.rows.at(layer).recorded(pos.to(device), index.to(device))
        found[list(rows)] = recorded.double().cpu().numpy()
    return found


def _influence(experiment: Experiment, places: list[Place], side: int) -> Float[ndarray, " feat"]:
    graph, arrived = experiment.graph, influence_shares(experiment.graph)
    nodes = (place.node(side) for place in places)
    return np.array(
        [arrived[graph.find(node)] if node is not None and node in graph else 0.0 for node in nodes]
    )
