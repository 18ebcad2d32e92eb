"""Comparison of two graphs of one dictionary: two prompts, or one prompt traced twice.

    jaccard = Σ min(a, b) / Σ max(a, b)

over all features of either graph, a and b being a feature's influence as a share of all, or over
all edges, a and b being the share of all influence that goes along the edge; both are 0 for a
feature or edge that a graph lacks.  Edges of both graphs are also compared by Spearman's rank
correlation of these shares with the signs of their weights.

Two circuits of one model overlap whatever the prompts, so every score has a null: its distribution
when features of the second graph are exchanged at random for features of either graph at the same
layer and position.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import edge_influence, influence_shares
from graphs.comparison.matching import Match, match_by_identity
from graphs.comparison.positions import align_prompts
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.identity import same_dictionary
from graphs.core.nodes import NodeKind
from graphs.core.provenance import UNKNOWN
from graphs.errors import HeadwaterError

PERMUTATIONS = 200


class ComparisonError(HeadwaterError):
    """Two graphs that cannot be compared in this way."""


@dataclass(frozen=True)
class Score:
    """A score and its null distribution."""

    value: float  # nan if there is too little to compare
    null: tuple[float, ...]

    @property
    def known_null(self) -> tuple[float, ...]:
        """The null distribution without nan, which are draws with too little to compare."""
        return tuple(value for value in self.null if not np.isnan(value))

    @property
    def null_mean(self) -> float:
        """Mean of the null; nan if it is unknown."""
        return float(np.mean(self.known_null)) if self.known_null else float("nan")

    @property
    def p_value(self) -> float:
        """(1 + draws of the null at least as large) / (1 + draws); nan if unknown."""
        if np.isnan(self.value) or not self.known_null:
            return float("nan")
        larger = sum(value >= self.value for value in self.known_null)
        return (1 + larger) / (1 + len(self.known_null))


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """Matched nodes of two graphs, and scores of overlap."""

    positions: Int[ndarray, " pos"]  # in the second prompt, for each of the first; -1: none
    match: Match
    influence: Float[ndarray, "pair 2"]  # shares of all, in either graph
    only_first: Int[ndarray, " one"]  # rows without a match
    only_second: Int[ndarray, " other"]
    features: Score  # weighted Jaccard of features
    edges: Score  # weighted Jaccard of edges
    ranks: Score  # Spearman over edges of both graphs; nan for fewer than three


def compare(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Match two graphs of one dictionary by identity and score their overlap.

    `positions` are aligned by their tokens by default (`graphs.comparison.positions`).

    Raises ComparisonError if the graphs name two dictionaries.
    """
    _require_one_dictionary(first, second)
    if positions is None:
        positions = align_prompts(first.provenance, second.provenance)
    match = match_by_identity(first, second, positions)
    place = places_of(first, second, match)
    cells = _cells(first, second, positions, place)
    rng = np.random.default_rng(seed)
    exchanged = (_shuffled(cells, rng)[place] for _ in range(permutations))
    return scored(first, second, positions, match, exchanged)


def _require_one_dictionary(first: AttributionGraph, second: AttributionGraph) -> None:
    named = [
        f"{g.provenance.dictionary.name} of {g.provenance.model.name}" for g in (first, second)
    ]
    known = UNKNOWN not in (first.provenance.dictionary.name, second.provenance.dictionary.name)
    if known and not same_dictionary(first, second):
        raise ComparisonError(
            f"Features of {named[0]} and {named[1]} are not the same by layer and index: "
            "use graphs.correspond, which matches them by evidence."
        )


def scored(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    match: Match,
    null_matches: Iterable[Int[ndarray, " node"]],
    kinds: tuple[NodeKind, ...] = tuple(NodeKind),
) -> Comparison:
    """Scores of a match, with the null given by other places of the second graph's nodes.

    A place is the row of the matched node; nodes without a match have distinct places from
    `len(first)` on.  Only edges between nodes of these kinds count.
    """
    size = len(first) + len(second)
    one = _Flows(first, kinds).at(np.arange(len(first)), size)
    flows = _Flows(second, kinds)
    values = _scores(one, flows.at(places_of(first, second, match), size))
    null = [_scores(one, flows.at(place, size)) for place in null_matches]
    features, edges, ranks = (
        Score(value, tuple(sorted(sample[which] for sample in null)))
        for which, value in enumerate(values)
    )
    shares = [influence_shares(graph) for graph in (first, second)]
    return Comparison(
        positions=positions,
        match=match,
        influence=np.stack([shares[0][match.first], shares[1][match.second]], axis=1),
        only_first=np.setdiff1d(np.arange(len(first)), match.first),
        only_second=np.setdiff1d(np.arange(len(second)), match.second),
        features=features,
        edges=edges,
        ranks=ranks,
    )


@dataclass(frozen=True)
class _Placed:
    """Influence at nodes of the union of two graphs, and along its edges."""

    nodes: Float[ndarray, " union"]
    edges: Int[ndarray, " edge"]  # one number for source and target
    flow: Float[ndarray, " edge"]  # with the sign of the weight


class _Flows:
    """A graph's influence at features and along edges, as shares of all."""

    def __init__(self, graph: AttributionGraph, kinds: tuple[NodeKind, ...]) -> None:
        arrived, counts = influence_shares(graph), graph.nodes.is_kind(*kinds)
        flow = edge_influence(graph, arrived)
        target, source = edge_targets(flow), flow.indices
        counted = (flow.data > 0) & counts[target] & counts[source]
        self.flow = np.where(graph.weights.data < 0, -flow.data, flow.data)[counted]
        self.target, self.source = target[counted], source[counted]
        self.at_features = np.where(graph.nodes.is_kind(NodeKind.FEATURE), arrived, 0.0)

    def at(self, place: Int[ndarray, " node"], size: int) -> _Placed:
        """Influence in the union of both graphs, with each node at its place."""
        nodes = np.zeros(size)
        nodes[place] = self.at_features
        return _Placed(nodes, place[self.target] * size + place[self.source], self.flow)


def _scores(first: _Placed, second: _Placed) -> tuple[float, float, float]:
    """Jaccard of features, Jaccard of edges, Spearman of shared edges."""
    nodes = _jaccard(
        np.minimum(first.nodes, second.nodes).sum(), first.nodes.sum(), second.nodes.sum()
    )
    _, ones, others = np.intersect1d(
        first.edges, second.edges, assume_unique=True, return_indices=True
    )
    a, b = first.flow[ones], second.flow[others]
    both = np.minimum(np.abs(a), np.abs(b)).sum()
    edges = _jaccard(both, np.abs(first.flow).sum(), np.abs(second.flow).sum())
    return nodes, edges, rank_correlation(a, b)


def rank_correlation(a: Float[ndarray, " item"], b: Float[ndarray, " item"]) -> float:
    """Spearman's, ties have their mean rank; nan for fewer than three or if all are equal.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
    1.0
    """
    if len(a) < 3:
        return float("nan")
    ranks = [_mean_ranks(values) - (len(a) - 1) / 2 for values in (a, b)]
    length = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / length) if length > 0 else float("nan")


def _mean_ranks(values: Float[ndarray, " item"]) -> Float[ndarray, " item"]:
    """Ranks from 0; equal values share the mean of theirs.

    As `scipy.stats.rankdata`, less 1: importing scipy.stats takes half a second.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts + 1) / 2)[place]


def _jaccard(both: float, one: float, other: float) -> float:
    either = one + other - both
    return float(both / either) if either > 0 else 1.0


def places_of(
    first: AttributionGraph, second: AttributionGraph, match: Match
) -> Int[ndarray, " node"]:
    """Places of the second graph's nodes in the union: at their match, or after all others."""
    place = len(first) + np.arange(len(second))
    place[match.second] = match.first
    return place


def _cells(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    place: Int[ndarray, " node"],
) -> Int[ndarray, " union"]:
    """Layer and position of every feature in the union as one number; -1 for other nodes."""
    cells = np.full(len(first) + len(second), -1)
    length = len(positions) + len(second.provenance.tokens)
    # Positions of the second prompt as aligned positions of the first, or after all of them.
    aligned_to = len(positions) + np.arange(len(second.provenance.tokens))
    aligned = np.flatnonzero(positions >= 0)
    aligned_to[positions[aligned]] = aligned
    for graph, rows, own in (
        (second, place, aligned_to),
        (first, np.arange(len(first)), np.arange(len(positions))),
    ):
        features = graph.nodes.is_kind(NodeKind.FEATURE)
        pos = own[graph.nodes.pos[features]]
        cells[rows[features]] = graph.nodes.layer[features] * length + pos
    return cells


def _shuffled(cells: Int[ndarray, " union"], rng: np.random.Generator) -> Int[ndarray, " union"]:
    """A random place within its cell for every node; nodes without a cell keep theirs."""
    place = np.arange(len(cells))
    inside = np.flatnonzero(cells >= 0)
    ordered = inside[np.argsort(cells[inside], kind="stable")]
    mixed = inside[np.lexsort((rng.random(len(inside)), cells[inside]))]
    place[ordered] = mixed
    return place
