"""Correspondence: the circuits of two models on one prompt, side by side.

Features are matched by evidence (`graphs.comparison.evidence`, `graphs.comparison.matching`) and
then compared as features of one dictionary are (`graphs.compare`).  Two more scores say how far a
match goes:

    matched = Σ over matched pairs (a + b) / Σ over all features       a, b: shares of influence
    alike   = the same, each pair counting by its similarity

Any two models have features that are somewhat alike, so every score comes beside the null: each
kind of evidence about the second model's features is exchanged at random among them, each kind
in another way, and the features are matched anew.  What then is left of a score is what
matching finds where nothing is to be found.  Edges of errors and biases are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import influence_shares
from graphs.comparison.compare import Comparison, Score, places_of, scored
from graphs.comparison.evidence import (
    Evidence,
    Profiles,
    Weights,
    evidence,
    relative_depth,
    similarity,
)
from graphs.comparison.matching import Match, match_by_similarity
from graphs.comparison.positions import align_prompts
from graphs.comparison.transport import transport
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind

PERMUTATIONS = 20
# Errors and biases of two models are about different things.
COMPARED = (NodeKind.FEATURE, *INPUT_KINDS, *TARGET_KINDS)


@dataclass(frozen=True)
class CorrespondSettings:
    """How features of two models are matched.  Raises ValueError for numbers out of range."""

    weights: Weights = field(default_factory=Weights)
    least: float = 0.5  # similarity that a pair must exceed
    permutations: int = PERMUTATIONS
    plans: int = 0  # of the permutations, how many get a transport plan; 0: none is made
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.least < 1.0:
            raise ValueError(f"least must be from 0 to below 1, got {self.least}.")
        if min(self.permutations, self.plans) < 0:
            raise ValueError("permutations and plans must not be negative.")


@dataclass(frozen=True)
class Witness:
    """What one kind of evidence says."""

    name: str
    weight: float
    known: float  # share of all pairs of features of which it says anything
    matched: float  # mean likeness of matched pairs that it knows; nan if there are none
    anywhere: float  # the same of all pairs


@dataclass(frozen=True)
class Correspondence:
    """Two models side by side."""

    comparison: Comparison
    pairs: Int[ndarray, "pair 2"]  # rows of matched features
    similarity: Float[ndarray, " pair"]
    depth: Float[ndarray, "pair 2"]  # relative, 0 the first layer and 1 the last
    witnesses: tuple[Witness, ...]
    matched: Score
    alike: Score
    moved: tuple[Score, Score] | None  # a plan's mass, and what of it goes between matched features
    by_chance: tuple[Match, ...]  # those of the null

    @property
    def shift(self) -> float:
        """Mean of how much deeper a matched feature is in the second model, by influence."""
        weight = self.influence().mean(axis=1)
        total = float(weight.sum())
        return float(weight @ (self.depth[:, 1] - self.depth[:, 0]) / total) if total > 0 else 0.0

    def influence(self) -> Float[ndarray, "pair 2"]:
        """Shares of influence of the matched features."""
        rows = np.isin(self.comparison.match.first, self.pairs[:, 0])
        return self.comparison.influence[rows]

    def shift_curve(self, bins: int = 5) -> Float[ndarray, "bin 3"]:
        """Depth in the first model, mean depth in the second, influence: a row for each range.

        Ranges without matched features are left out.
        """
        weight = self.influence().mean(axis=1)
        part = np.minimum((self.depth[:, 0] * bins).astype(int), bins - 1)
        rows: list[tuple[float, float, float]] = []
        for number in np.unique(part).tolist():
            here = (part == number) & (weight > 0)
            total = float(weight[here].sum())
            if total > 0:
                one, other = weight[here] @ self.depth[here] / total
                rows.append((float(one), float(other), total))
        return np.array(rows, dtype=np.float64).reshape(-1, 3)


def correspond(
    first: AttributionGraph,
    second: AttributionGraph,
    settings: CorrespondSettings | None = None,
    profiles: Profiles | None = None,
) -> Correspondence:
    """Match the features of two models and say how much the circuits share.

    `profiles` are those of the two dictionaries, over some prompts that both have.
    """
    chosen = settings or CorrespondSettings()
    positions = align_prompts(first.provenance, second.provenance)
    rows = (_feature_rows(first), _feature_rows(second))
    shape = len(rows[0]), len(rows[1])
    found = evidence(first, second, positions, chosen.weights, profiles)

    def matched(known: Sequence[Evidence]) -> tuple[Match, Float[ndarray, "one other"]]:
        alike = similarity(known, shape)
        return match_by_similarity(first, second, positions, alike, chosen.least), alike

    match, alike = matched(found)
    shares = tuple(influence_shares(g)[own] for g, own in zip((first, second), rows, strict=True))
    place = tuple(_place(own, len(g)) for g, own in zip((first, second), rows, strict=True))

    def moved(matched: Match, alike: Float[ndarray, "one other"]) -> tuple[float, float]:
        plan = transport(first, second, rows, alike)
        return plan.mass, plan.agreement(_features(matched, place))

    by_chance: list[Match] = []
    covered_by_chance: list[tuple[float, float]] = []
    moved_by_chance: list[tuple[float, float]] = []
    for known in _exchanged(found, shape[1], chosen):
        other, like = matched(known)  # one matrix of similarities at a time
        covered_by_chance.append(_covered(_features(other, place), like, shares))
        if len(by_chance) < chosen.plans:
            moved_by_chance.append(moved(other, like))
        by_chance.append(other)
    comparison = scored(
        first,
        second,
        positions,
        match,
        (places_of(first, second, other) for other in by_chance),
        COMPARED,
    )
    pairs = _features(match, place)
    own = tuple(rows[side][pairs[:, side]] for side in (0, 1))
    reached, resembled = _beside(_covered(pairs, alike, shares), covered_by_chance)
    return Correspondence(
        comparison,
        np.stack(own, axis=1),
        alike[tuple(pairs.T)],
        np.stack([relative_depth(first, own[0]), relative_depth(second, own[1])], axis=1),
        tuple(_witness(kind, pairs) for kind in found),
        reached,
        resembled,
        _beside(moved(match, alike), moved_by_chance) if chosen.plans > 0 else None,
        tuple(by_chance),
    )


def _beside(
    values: tuple[float, float], chance: Sequence[tuple[float, float]]
) -> tuple[Score, Score]:
    one, other = (
        Score(value, tuple(sorted(sample[which] for sample in chance)))
        for which, value in enumerate(values)
    )
    return one, other


def _exchanged(
    found: Sequence[Evidence], count: int, settings: CorrespondSettings
) -> Iterator[list[Evidence]]:
    """Evidence of which no two kinds are about the same feature any more."""
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.permutations):
        yield [kind.exchanged(rng.permutation(count)) for kind in found]


def _feature_rows(graph: AttributionGraph) -> Int[ndarray, " _feat"]:
    return np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))


def _place(rows: Int[ndarray, " _feat"], count: int) -> Int[ndarray, " _node"]:
    """For every node its place in the list of features, or -1."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return place


def _features(match: Match, place: tuple[Int[ndarray, " _node"], ...]) -> Int[ndarray, "pair 2"]:
    """Places of matched features."""
    both = np.stack([place[0][match.first], place[1][match.second]], axis=1)
    return both[(both >= 0).all(axis=1)]


def _covered(
    pairs: Int[ndarray, "pair 2"],
    alike: Float[ndarray, "one other"],
    shares: tuple[Float[ndarray, " _feat"], ...],
) -> tuple[float, float]:
    """`matched` and `alike`."""
    both = shares[0][pairs[:, 0]] + shares[1][pairs[:, 1]]
    total = float(shares[0].sum() + shares[1].sum()) or 1.0
    return float(both.sum()) / total, float(both @ alike[tuple(pairs.T)]) / total


def _witness(kind: Evidence, pairs: Int[ndarray, "pair 2"]) -> Witness:
    inner = tuple(pairs.T)
    known, likeness = kind.known[inner], kind.likeness[inner]
    return Witness(
        kind.name,
        kind.weight,
        float(kind.known.mean()),
        float(likeness[known].mean()) if np.any(known) else float("nan"),
        float(kind.likeness[kind.known].mean()),
    )
