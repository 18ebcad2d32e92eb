"""Matching: which node of one graph is which of another with the same dictionary.

Features are matched by layer, index and position, where positions stand for each other as
`graphs.positions` says; errors by layer and position, biases by layer.  Tokens are matched by
position alone and may differ: that is what a contrast prompt changes.  Predictions are matched by
their text, and the most probable of those that are left with each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.graph import AttributionGraph
from graphs.nodes import TARGET_KINDS, NodeKind


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


def _targets(first: AttributionGraph, second: AttributionGraph) -> list[tuple[int, int]]:
    """Predictions of one text, then the most probable of those left with each other."""
    told = [
        sorted(
            zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True),
            key=lambda pair, graph=graph: (-float(graph.seed[pair[0]]), pair[0]),
        )
        for graph in (first, second)
    ]
    texts = {target.text: row for row, target in reversed(told[1])}
    pairs: list[tuple[int, int]] = []
    for row, target in told[0]:
        if target.text in texts:
            pairs.append((row, texts.pop(target.text)))
    ones, others = ({pair[side] for pair in pairs} for side in (0, 1))
    left = [
        [row for row, _ in side if row not in used]
        for side, used in zip(told, (ones, others), strict=True)
    ]
    return pairs + list(zip(*left, strict=False))
