"""Concepts: groups of features, paired between two graphs.

Groups of two graphs are paired so that the influence at matched features that are in both groups of
a pair is largest in total (assignment problem, Hungarian algorithm).  Names of groups play no part.

Paths overlap as far as they go through the same concepts:

    overlap = Σ min(a, b) / Σ max(a, b)

over chains of concepts, tokens and matched features, a and b being the share of the influence on
the predictions along each chain, among the strongest paths of either graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.flow import inputs_to_targets
from graphs.analysis.influence import influence_shares
from graphs.analysis.paths import NodePath, strongest_paths
from graphs.comparison.compare import Score
from graphs.comparison.evidence import mean_depth
from graphs.comparison.matching import Match
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph

Groups = Mapping[str, Int[ndarray, " _member"]]  # rows of each group
PATHS = 200  # of each graph, whose chains are compared


@dataclass(frozen=True)
class Appearance:
    """A concept in one graph."""

    name: str  # of its group
    features: int
    influence: float  # share of all
    depth: float  # relative, by influence: 0 is the first layer, 1 the last


@dataclass(frozen=True, repr=False)
class Concept(Brief):
    """A group of either graph and the paired group, if there is one."""

    first: Appearance | None
    second: Appearance | None
    shared: float  # mean influence at matched features that are in both groups


def concepts(
    first: AttributionGraph,
    second: AttributionGraph,
    match: Match,
    groups: tuple[Groups, Groups],
) -> list[Concept]:
    """All concepts, most influential first."""
    arrived = (influence_shares(first), influence_shares(second))
    appearances = [
        [_appearance(graph, own, name, rows) for name, rows in side.items()]
        for graph, own, side in zip((first, second), arrived, groups, strict=True)
    ]
    pairs = paired_groups(arrived, match, groups)
    found = [Concept(appearances[0][i], appearances[1][j], shared) for i, j, shared in pairs]
    used = [{pair[side] for pair in pairs} for side in (0, 1)]
    found += [Concept(one, None, 0.0) for i, one in enumerate(appearances[0]) if i not in used[0]]
    found += [
        Concept(None, other, 0.0) for j, other in enumerate(appearances[1]) if j not in used[1]
    ]
    return sorted(found, key=lambda concept: -_influence(concept))


def paired_groups(
    arrived: tuple[Float[ndarray, " node"], Float[ndarray, " other"]],  # shares of influence
    match: Match,
    groups: tuple[Groups, Groups],
) -> list[tuple[int, int, float]]:
    """Numbers of paired groups, and the mean influence at matched features that are in both."""
    # Here, since it takes as long to import as a small comparison takes.
    from scipy.optimize import linear_sum_assignment

    shared = _shared(arrived, match, groups)
    ones, others = linear_sum_assignment(shared, maximize=True)
    return [
        (i, j, float(shared[i, j]))
        for i, j in zip(ones.tolist(), others.tolist(), strict=True)
        if float(shared[i, j]) > 0
    ]


def path_overlap(
    first: AttributionGraph,
    second: AttributionGraph,
    match: Match,
    null_matches: Sequence[Match],
    groups: tuple[Groups, Groups],
) -> Score:
    """Overlap of the strongest paths by concepts, with its null; 1 if neither graph has paths."""
    listed = [
        strongest_paths(graph, inputs_to_targets(graph), PATHS).listed for graph in (first, second)
    ]
    arrived = (influence_shares(first), influence_shares(second))

    def overlap(matched: Match) -> float:
        pairs = [(i, j) for i, j, _ in paired_groups(arrived, matched, groups)]
        steps = _steps(matched, pairs, groups)
        one, other = (
            _chains(paths, own, side)
            for paths, own, side in zip(listed, steps, ("first", "second"), strict=True)
        )
        every = {**one, **other}  # in a fixed order, unlike a set of strings
        shares = [(one.get(chain, 0.0), other.get(chain, 0.0)) for chain in every]
        most = sum(map(max, shares))
        return sum(map(min, shares)) / most if most > 0 else 1.0

    return Score(overlap(match), tuple(sorted(map(overlap, null_matches))))


def _steps(
    match: Match, pairs: list[tuple[int, int]], groups: tuple[Groups, Groups]
) -> tuple[dict[int, str], dict[int, str]]:
    """Step of each node on a path: a concept, a matched node, or a node of one graph only."""
    paired = (dict(pairs), {j: i for i, j in pairs})
    steps: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for number, rows in enumerate(groups[0].values()):
        step = f"both {number}" if number in paired[0] else f"first {number}"
        steps[0].update(dict.fromkeys(rows.tolist(), step))
    for number, rows in enumerate(groups[1].values()):
        step = f"both {paired[1][number]}" if number in paired[1] else f"second {number}"
        steps[1].update(dict.fromkeys(rows.tolist(), step))
    for one, other in zip(match.first.tolist(), match.second.tolist(), strict=True):
        if one not in steps[0] and other not in steps[1]:
            steps[0][one] = steps[1][other] = f"node {one}"
    return steps


def _chains(
    paths: tuple[NodePath, ...], steps: Mapping[int, str], side: str
) -> dict[tuple[str, ...], float]:
    """Share of each chain of steps; consecutive nodes of one step count once."""
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for path in paths:
        named = (steps.get(row, f"{side} node {row}") for row in path.nodes)
        found[tuple(step for step, _ in groupby(named))] += path.share
    return found


def _shared(
    arrived: tuple[Float[ndarray, " _node"], Float[ndarray, " _other"]],
    match: Match,
    groups: tuple[Groups, Groups],
) -> Float[ndarray, "one other"]:
    """Mean influence at matched features, by the pair of groups that they are in."""
    mean = (arrived[0][match.first] + arrived[1][match.second]) / 2
    one = _number(groups[0], len(arrived[0]), match.first)
    other = _number(groups[1], len(arrived[1]), match.second)
    shared = np.zeros((len(groups[0]), len(groups[1])))
    both = (one >= 0) & (other >= 0)
    np.add.at(shared, (one[both], other[both]), mean[both])
    return shared


def _number(groups: Groups, count: int, rows: Int[ndarray, " _pair"]) -> Int[ndarray, " _pair"]:
    """Number of the group of each of these nodes, or -1."""
    number = np.full(count, -1)
    for place, members in enumerate(groups.values()):
        number[members] = place
    return number[rows]


def _appearance(
    graph: AttributionGraph,
    arrived: Float[ndarray, " node"],
    name: str,
    rows: Int[ndarray, " _member"],
) -> Appearance:
    own = arrived[rows]
    total = float(own.sum())
    weight = own if total > 0 else np.ones_like(own)
    return Appearance(name, len(rows), total, mean_depth(graph, rows, weight))


def _influence(concept: Concept) -> float:
    sides = (concept.first, concept.second)
    return sum(side.influence for side in sides if side is not None)
