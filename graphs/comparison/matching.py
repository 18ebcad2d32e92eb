"""Matching: pairs of nodes of two graphs.

With one dictionary, features are matched by layer, index and aligned position
(`graphs.comparison.positions`), errors by layer and position, biases by layer.  With two, features
are matched by similarity (`graphs.comparison.evidence`) so that the sum of similarity above
`min_similarity` is largest (assignment problem, Hungarian algorithm); errors and biases are not
matched.

Tokens are matched by position alone and may differ, as they do in contrast prompts.  Predictions
are matched by id within one vocabulary, else by text, then by text without surrounding blanks, and
the rest in order of probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_vocabulary
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.core.provenance import Target


@dataclass(frozen=True, repr=False)
class Match(Brief):
    """Rows of matched nodes; a node is in at most one pair."""

    first: Int[ndarray, " pair"]
    second: Int[ndarray, " pair"]


def match_by_identity(
    first: AttributionGraph, second: AttributionGraph, positions: Int[ndarray, " pos"]
) -> Match:
    """Pairs of nodes; `positions` is the second prompt's position for each of the first, or -1."""
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
    min_similarity: float,
) -> Match:
    """Pairs of nodes of two models; rows and columns of `similarity` are features in order."""
    ones, others = (
        np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)) for graph in (first, second)
    )
    above = np.maximum(similarity - min_similarity, 0.0, dtype=np.float64, order="C")
    # Here, since it takes as long to import as a small comparison takes.
    from scipy.optimize import linear_sum_assignment

    paired = np.stack(linear_sum_assignment(above, maximize=True))
    paired = paired[:, above[tuple(paired)] > 0]
    pairs = list(zip(ones[paired[0]].tolist(), others[paired[1]].tolist(), strict=True))
    pairs += _tokens(first, second, positions) + _targets(first, second)
    rows = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Match(rows[:, 0], rows[:, 1])


def identity_keys(
    graph: AttributionGraph, positions: Int[ndarray, " pos"] | None = None
) -> list[tuple[int, ...] | None]:
    """Key of each node, (kind, layer, pos, index), equal for the same node of another graph.

    None for targets and for nodes at positions without an aligned position.
    """
    nodes = graph.nodes
    index = np.where(nodes.is_kind(NodeKind.FEATURE), nodes.index, -1)
    pos = nodes.pos
    if positions is not None:
        pos = np.where(pos >= 0, positions[np.maximum(pos, 0)], -1)
    unmatched = ((pos < 0) & (nodes.pos >= 0)) | nodes.is_kind(*TARGET_KINDS)
    columns = (nodes.kind, nodes.layer, pos, index)
    rows: list[list[int]] = np.stack(columns, axis=1).tolist()
    return [
        None if skip else tuple(row) for row, skip in zip(rows, unmatched.tolist(), strict=True)
    ]


def _tokens(
    first: AttributionGraph, second: AttributionGraph, positions: Int[ndarray, " pos"]
) -> list[tuple[int, int]]:
    """Tokens at aligned positions; of several aligned to one, the last, with most context."""
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
    """Pairs of targets: by token or text, the remaining ones in order of probability."""
    left = [
        sorted(
            zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True),
            key=lambda pair, graph=graph: (-float(graph.seed[pair[0]]), pair[0]),
        )
        for graph in (first, second)
    ]
    pairs: list[tuple[int, int]] = []
    exact = _entry if same_vocabulary(first.provenance, second.provenance) else _text
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
