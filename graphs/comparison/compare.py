"""Comparing two graphs of one dictionary: two prompts, or one prompt traced twice.

    jaccard = Σ min(a, b) / Σ max(a, b)

over all features of either graph, a and b being a feature's influence as a share of all, or over
all edges, a and b being the share of all influence that goes along the edge; what a graph does not
have is 0.  Edges that both have are also compared by Spearman's rank correlation of these shares
with the signs of their weights.

Two circuits of one model overlap whatever the prompts, so every score comes beside what it is when
features of the second graph are exchanged at random for features of either graph at the same
layer and position: the null.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.stats import rankdata

from graphs.analysis.influence import edge_influence, influence_shares
from graphs.comparison.matching import Match, match_by_identity
from graphs.comparison.positions import align_prompts
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import NodeKind

PERMUTATIONS = 200


@dataclass(frozen=True)
class Score:
    """A number and what it is by chance."""

    value: float  # nan where there is too little to compare
    null: tuple[float, ...]

    @property
    def known(self) -> tuple[float, ...]:
        """What chance gave where there was enough to compare."""
        return tuple(value for value in self.null if not np.isnan(value))

    @property
    def expected(self) -> float:
        """The mean of what chance gave; nan if that is unknown."""
        return float(np.mean(self.known)) if self.known else float("nan")

    @property
    def chance(self) -> float:
        """How likely chance gives as much: (1 + those at least as large) / (1 + all); or nan."""
        if np.isnan(self.value) or not self.known:
            return float("nan")
        larger = sum(value >= self.value for value in self.known)
        return (1 + larger) / (1 + len(self.known))


@dataclass(frozen=True)
class Comparison:
    """Two graphs side by side."""

    positions: Int[ndarray, " pos"]  # of the second prompt, for each of the first; -1: none
    match: Match
    influence: Float[ndarray, "pair 2"]  # shares of all, in either graph
    only_first: Int[ndarray, " one"]  # rows without a partner
    only_second: Int[ndarray, " other"]
    features: Score  # weighted Jaccard of features
    edges: Score  # weighted Jaccard of edges
    ranks: Score  # Spearman of edges that both have; nan for fewer than three


def compare(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Match two graphs of one dictionary by identity and say how much they share.

    `positions` are aligned by their tokens unless they are given (`graphs.comparison.positions`).
    """
    if positions is None:
        positions = align_prompts(first.provenance, second.provenance)
    match = match_by_identity(first, second, positions)
    place = places_of(first, second, match)
    cells = _cells(first, second, positions, place)
    rng = np.random.default_rng(seed)
    exchanged = (_shuffled(cells, rng)[place] for _ in range(permutations))
    return scored(first, second, positions, match, exchanged)


def scored(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    match: Match,
    by_chance: Iterable[Int[ndarray, " node"]],
    kinds: tuple[NodeKind, ...] = tuple(NodeKind),
) -> Comparison:
    """Scores of a match, beside those of other places for the second graph's nodes.

    Edges count that run between nodes of these kinds.
    A place is the partner's row, or for nodes without a partner any from `len(first)` on, each
    node at another.
    """
    size = len(first) + len(second)
    one = _Flows(first, kinds).at(np.arange(len(first)), size)
    flows = _Flows(second, kinds)
    values = _scores(one, flows.at(places_of(first, second, match), size))
    null = [_scores(one, flows.at(place, size)) for place in by_chance]
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
    """Influence at nodes of the union of two graphs, and along edges between them."""

    nodes: Float[ndarray, " union"]
    edges: Int[ndarray, " edge"]  # one number for the ends of each
    flow: Float[ndarray, " edge"]  # with the sign of the weight


class _Flows:
    """A graph's influence at features and along edges, as shares of all."""

    def __init__(self, graph: AttributionGraph, kinds: tuple[NodeKind, ...]) -> None:
        arrived, counts = influence_shares(graph), graph.nodes.is_kind(*kinds)
        flow = edge_influence(graph, arrived)
        target, source = edge_targets(flow), flow.indices
        carries = (flow.data > 0) & counts[target] & counts[source]
        self.flow = np.where(graph.weights.data < 0, -flow.data, flow.data)[carries]
        self.target, self.source = target[carries], source[carries]
        self.at_features = np.where(graph.nodes.is_kind(NodeKind.FEATURE), arrived, 0.0)

    def at(self, place: Int[ndarray, " node"], size: int) -> _Placed:
        """The same in the union, where each node has its place."""
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
    """Spearman's, ties sharing their mean rank; nan for fewer than three or where all are equal.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
    1.0
    """
    if len(a) < 3:
        return float("nan")
    ranks = [rankdata(values) - (len(a) + 1) / 2 for values in (a, b)]
    length = np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1]))
    return float(ranks[0] @ ranks[1] / length) if length > 0 else float("nan")


def _jaccard(both: float, one: float, other: float) -> float:
    either = one + other - both
    return float(both / either) if either > 0 else 1.0


def places_of(
    first: AttributionGraph, second: AttributionGraph, match: Match
) -> Int[ndarray, " node"]:
    """Where the second graph's nodes are in the union: at their partner, or behind all."""
    place = len(first) + np.arange(len(second))
    place[match.second] = match.first
    return place


def _cells(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    place: Int[ndarray, " node"],
) -> Int[ndarray, " union"]:
    """Layer and position of every feature in the union as one number; -1 for all else."""
    cells = np.full(len(first) + len(second), -1)
    length = len(positions) + len(second.provenance.tokens)
    # Positions of the second prompt as those of the first, or behind them.
    back = len(positions) + np.arange(len(second.provenance.tokens))
    aligned = np.flatnonzero(positions >= 0)
    back[positions[aligned]] = aligned
    for graph, rows, own in (
        (second, place, back),
        (first, np.arange(len(first)), np.arange(len(positions))),
    ):
        features = graph.nodes.is_kind(NodeKind.FEATURE)
        pos = own[graph.nodes.pos[features]]
        cells[rows[features]] = graph.nodes.layer[features] * length + pos
    return cells


def _shuffled(cells: Int[ndarray, " union"], rng: np.random.Generator) -> Int[ndarray, " union"]:
    """A new place for every node, within its cell; nodes without a cell stay."""
    place = np.arange(len(cells))
    inside = np.flatnonzero(cells >= 0)
    ordered = inside[np.argsort(cells[inside], kind="stable")]
    mixed = inside[np.lexsort((rng.random(len(inside)), cells[inside]))]
    place[ordered] = mixed
    return place
