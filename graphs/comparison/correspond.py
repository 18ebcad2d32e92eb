"""Correspondence: the circuits of two models on one prompt.

Features are matched by evidence (`graphs.comparison.evidence`, `graphs.comparison.matching`) and
then compared like features of one dictionary (`graphs.compare`).  Two more scores measure how much
influence is matched:

    matched            = Σ over matched pairs (a + b) / Σ over all features   a, b: influence shares
    matched_weighted   = the same with each pair weighted by its similarity

Features of any two models are somewhat similar, so every score has a null: each kind of evidence is
permuted among the second model's features, each kind by a permutation of its own, and the features
are matched again.  Edges of errors and biases are not compared.
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
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind

PERMUTATIONS = 20
# Errors and biases of two models do not correspond.
COMPARED = (NodeKind.FEATURE, *INPUT_KINDS, *TARGET_KINDS)


@dataclass(frozen=True)
class CorrespondSettings:
    """How features of two models are matched.  Raises ValueError for values out of range."""

    weights: Weights = field(default_factory=Weights)
    min_similarity: float = 0.5  # a matched pair must exceed it
    permutations: int = PERMUTATIONS
    plans: int = 0  # number of permutations with a transport plan; 0: no plans at all
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_similarity < 1.0:
            raise ValueError(
                f"min_similarity must be at least 0 and below 1, got {self.min_similarity}."
            )
        if min(self.permutations, self.plans) < 0:
            raise ValueError("permutations and plans must not be negative.")


@dataclass(frozen=True)
class EvidenceSummary:
    """Coverage and mean similarity of one kind of evidence."""

    name: str
    weight: float
    known: float  # share of all pairs of features for which it is known
    matched: float  # mean similarity of matched pairs where known; nan if none
    anywhere: float  # mean similarity of all pairs where known


@dataclass(frozen=True, repr=False)
class Correspondence(Brief):
    """Matched features of two models, and scores of the match."""

    comparison: Comparison
    pairs: Int[ndarray, "pair 2"]  # rows of matched features
    similarity: Float[ndarray, " pair"]
    depth: Float[ndarray, "pair 2"]  # relative, 0 the first layer and 1 the last
    evidence: tuple[EvidenceSummary, ...]
    matched: Score
    matched_weighted: Score
    transported: tuple[Score, Score] | None  # a plan's mass, and its share at matched pairs
    null_matches: tuple[Match, ...]  # one per permutation

    @property
    def shift(self) -> float:
        """Mean depth of matched features in the second model less the first, by influence."""
        weight = self.influence().mean(axis=1)
        total = float(weight.sum())
        return float(weight @ (self.depth[:, 1] - self.depth[:, 0]) / total) if total > 0 else 0.0

    def influence(self) -> Float[ndarray, "pair 2"]:
        """Influence shares of the matched features."""
        rows = np.isin(self.comparison.match.first, self.pairs[:, 0])
        return self.comparison.influence[rows]

    def shift_curve(self, bins: int = 5) -> Float[ndarray, "bin 3"]:
        """Mean depth in both models and influence: a row for each range of depth in the first.

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
    """Match the features of two models and score how much the circuits share.

    `profiles` are those of the two dictionaries, with some prompts in common.
    """
    chosen = settings or CorrespondSettings()
    positions = align_prompts(first.provenance, second.provenance)
    rows = (_feature_rows(first), _feature_rows(second))
    shape = len(rows[0]), len(rows[1])
    found = evidence(first, second, positions, chosen.weights, profiles)

    def matched(known: Sequence[Evidence]) -> tuple[Match, Float[ndarray, "one other"]]:
        similar = similarity(known, shape)
        match = match_by_similarity(first, second, positions, similar, chosen.min_similarity)
        return match, similar

    match, similar = matched(found)
    shares = tuple(influence_shares(g)[own] for g, own in zip((first, second), rows, strict=True))
    place = tuple(_place(own, len(g)) for g, own in zip((first, second), rows, strict=True))

    def transported(matched: Match, similar: Float[ndarray, "one other"]) -> tuple[float, float]:
        plan = transport(first, second, rows, similar)
        return plan.mass, plan.agreement(_features(matched, place))

    null_matches: list[Match] = []
    null_covered: list[tuple[float, float]] = []
    null_transported: list[tuple[float, float]] = []
    for known in _exchanged(found, shape[1], chosen):
        other, exchanged = matched(known)  # one similarity matrix in memory at a time
        null_covered.append(_covered(_features(other, place), exchanged, shares))
        if len(null_matches) < chosen.plans:
            null_transported.append(transported(other, exchanged))
        null_matches.append(other)
    comparison = scored(
        first,
        second,
        positions,
        match,
        (places_of(first, second, other) for other in null_matches),
        COMPARED,
    )
    pairs = _features(match, place)
    own = tuple(rows[side][pairs[:, side]] for side in (0, 1))
    covered, covered_weighted = _with_null(_covered(pairs, similar, shares), null_covered)
    return Correspondence(
        comparison,
        np.stack(own, axis=1),
        similar[tuple(pairs.T)],
        np.stack([relative_depth(first, own[0]), relative_depth(second, own[1])], axis=1),
        tuple(_summary(kind, pairs) for kind in found),
        covered,
        covered_weighted,
        _with_null(transported(match, similar), null_transported) if chosen.plans > 0 else None,
        tuple(null_matches),
    )


def _with_null(
    values: tuple[float, float], null: Sequence[tuple[float, float]]
) -> tuple[Score, Score]:
    one, other = (
        Score(value, tuple(sorted(sample[which] for sample in null)))
        for which, value in enumerate(values)
    )
    return one, other


def _exchanged(
    found: Sequence[Evidence], count: int, settings: CorrespondSettings
) -> Iterator[list[Evidence]]:
    """Evidence with each kind permuted among the second features on its own."""
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.permutations):
        yield [kind.exchanged(rng.permutation(count)) for kind in found]


def _feature_rows(graph: AttributionGraph) -> Int[ndarray, " _feat"]:
    return np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))


def _place(rows: Int[ndarray, " _feat"], count: int) -> Int[ndarray, " _node"]:
    """Place of every node in the list of features, or -1."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return place


def _features(match: Match, place: tuple[Int[ndarray, " _node"], ...]) -> Int[ndarray, "pair 2"]:
    """Matched features, by places in the lists of features."""
    both = np.stack([place[0][match.first], place[1][match.second]], axis=1)
    return both[(both >= 0).all(axis=1)]


def _covered(
    pairs: Int[ndarray, "pair 2"],
    similar: Float[ndarray, "one other"],
    shares: tuple[Float[ndarray, " _feat"], ...],
) -> tuple[float, float]:
    """`matched` and `matched_weighted`."""
    both = shares[0][pairs[:, 0]] + shares[1][pairs[:, 1]]
    total = float(shares[0].sum() + shares[1].sum()) or 1.0
    return float(both.sum()) / total, float(both @ similar[tuple(pairs.T)]) / total


def _summary(kind: Evidence, pairs: Int[ndarray, "pair 2"]) -> EvidenceSummary:
    inner = tuple(pairs.T)
    known, similarity = kind.known[inner], kind.similarity[inner]
    return EvidenceSummary(
        kind.name,
        kind.weight,
        float(kind.known.mean()),
        float(similarity[known].mean()) if np.any(known) else float("nan"),
        float(kind.similarity[kind.known].mean()),
    )
