"""Matching: which node of one graph is which of another.

With one dictionary, features are matched by layer, index and position, where positions stand for
each other as `graphs.comparison.positions` says; errors by layer and position, biases by layer.
With two, features are matched by their similarity (`graphs.comparison.evidence`) such that the sum
of what it is above `least` is as large as can be (the Hungarian problem), and errors and biases not
at all.

Tokens are matched by position alone and may differ: that is what a contrast prompt changes.
Predictions are matched by their id in one vocabulary, else by their text, then by their text
without blanks, and then the most probable of those that are left with each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment

from graphs.core.graph import AttributionGraph
from graphs.core.identity import one_vocabulary
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.core.provenance import Target


@dataclass(frozen=True)
class Match:
    """Rows of nodes that are the same; a node is in one pair at most."""

    first: Int[ndarray, " pair"]
    second: Int[ndarray, " pair"]

    def of_first(self, count: int) -> Int[ndarray, " node"]:
        """For every node of the first graph its partner's row, or -1."""
        partner = np.full(count, -1)
        partner[self.first] = self.second
        return partner


def match_by_identity(
    first: AttributionGraph, second: AttributionGraph, positions: Int[ndarray, " pos"]
) -> Match:
    """Pairs of nodes; `positions` has the second prompt's position for each of the first's."""
    there = {key: row for row, key in enumerate(identity_keys(second)) if key is not None}
    pairs = [
        (row, there[key])
        for row, key in enumerate(identity_keys(first, positions))
        if key is not None and key in there
    ]
    pairs += _targets(first, second)
    rows = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Match(rows[:, 0], rows[:, 1])


def match_by_similarity(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    similarity: Float[ndarray, "one other"],
    least: float,
) -> Match:
    """Pairs of nodes of two models; rows and columns of `similarity` are features in order."""
    ones, others = (
        np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)) for graph in (first, second)
    )
    above = np.maximum(similarity - least, 0.0, dtype=np.float64, order="C")
    paired = np.stack(linear_sum_assignment(above, maximize=True))
    paired = paired[:, above[tuple(paired)] > 0]
    pairs = list(zip(ones[paired[0]].tolist(), others[paired[1]].tolist(), strict=True))
    pairs += _tokens(first, second, positions) + _targets(first, second)
    rows = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Match(rows[:, 0], rows[:, 1])


def identity_keys(
    graph: AttributionGraph, positions: Int[ndarray, " pos"] | None = None
) -> list[tuple[int, ...] | None]:
    """What makes a node the same in another graph, as (kind, layer, pos, index).

    None for targets and for nodes at positions that have none there.
    """
    nodes = graph.nodes
    index = np.where(nodes.is_kind(NodeKind.FEATURE), nodes.index, -1)
    pos = nodes.pos
    if positions is not None:
        pos = np.where(pos >= 0, positions[np.maximum(pos, 0)], -1)
    lost = ((pos < 0) & (nodes.pos >= 0)) | nodes.is_kind(*TARGET_KINDS)
    columns = (nodes.kind, nodes.layer, pos, index)
    rows: list[list[int]] = np.stack(columns, axis=1).tolist()
    return [None if gone else tuple(row) for row, gone in zip(rows, lost.tolist(), strict=True)]


def _tokens(
    first: AttributionGraph, second: AttributionGraph, positions: Int[ndarray, " pos"]
) -> list[tuple[int, int]]:
    """Tokens at positions that stand for each other; of several the last, which knows most."""
    at = [
        {int(graph.nodes.pos[row]): int(row) for row in np.flatnonzero(is_token)}
        for graph in (first, second)
        for is_token in [graph.nodes.is_kind(NodeKind.TOKEN)]
    ]
    last = {there: pos for pos, there in enumerate(positions.tolist()) if there >= 0}
    return [
        (at[0][pos], at[1][there]) for there, pos in last.items() if pos in at[0] and there in at[1]
    ]


def _targets(first: AttributionGraph, second: AttributionGraph) -> list[tuple[int, int]]:
    """Predictions of one token or text, then the most probable of those left with each other."""
    left = [
        sorted(
            zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True),
            key=lambda pair, graph=graph: (-float(graph.seed[pair[0]]), pair[0]),
        )
        for graph in (first, second)
    ]
    pairs: list[tuple[int, int]] = []
    exact = _entry if one_vocabulary(first.provenance, second.provenance) else _text
    for key in (exact, _bare_text):
        known = {key(target): row for row, target in reversed(left[1])}
        for row, target in left[0]:
            partner = known.pop(key(target), None)
            if partner is not None:
                pairs.append((row, partner))
        used = [{pair[side] for pair in pairs} for side in (0, 1)]
        left = [
            [entry for entry in side if entry[0] not in taken]
            for side, taken in zip(left, used, strict=True)
        ]
    rows = ([row for row, _ in side] for side in left)
    return pairs + list(zip(*rows, strict=False))


def _entry(target: Target) -> int | str:
    return target.text if target.token_id is None else target.token_id


def _text(target: Target) -> str:
    return target.text


def _bare_text(target: Target) -> str:
    return target.text.strip()
