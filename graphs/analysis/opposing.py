"""Opposing: what raises a prediction and what lowers it, over all paths.

    total[s] = weights[target, s] + Σ_t total[t] · weights[t, s] / activation[t]     t: features

The total effect is what the target's value loses without the node where every feature follows what
reaches it: what `graphs.predict` says of its ablation with nothing held, so it shares the same
assumption, that features stay linear and active.

Why one prediction and not another is the difference of two such effects: a feature helps by raising
the one, or by suppressing the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.select import SelectionError
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Target


@dataclass(frozen=True)
class Effect:
    """What one feature does to a prediction, and to its rival if there is one."""

    node: str
    says: str
    on: float  # total effect, in units of the target's value
    on_rival: float | None

    @property
    def difference(self) -> float:
        """In favour of the one and not the other."""
        return self.on - (self.on_rival or 0.0)


@dataclass(frozen=True)
class Opposing:
    """Features by what they do, most first."""

    helping: tuple[Effect, ...]  # in favour of the prediction and not of its rival
    hindering: tuple[Effect, ...]  # the other way round
    suppressing: tuple[Effect, ...]  # what lowers the rival; empty without one
    remarks: tuple[str, ...] = ()  # on which target was meant, where several have a text


def opposing(
    graph: AttributionGraph, target: str, rival: str | None = None, count: int = 10
) -> Opposing:
    """Features that speak for a prediction, against it, and against its rival.

    Both name targets of the graph (`named_targets`), the most probable of several.  Raises
    SelectionError for others, for one against itself and for a graph without activations.
    """
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    if np.any(np.isnan(graph.nodes.activation[features])):
        raise SelectionError(
            "This graph does not say how active its features are, so effects over all paths are "
            "not known: trace the prompt with headwater."
        )
    named = {text: named_targets(graph, text) for text in (target, rival) if text is not None}
    if rival is not None and named[rival][0] == named[target][0]:
        raise SelectionError(f"{rival!r} is the prediction itself: give another rival.")
    on = total_effects(graph, named[target][0])
    other = np.zeros(len(graph)) if rival is None else total_effects(graph, named[rival][0])

    def most(values: Float[ndarray, " node"]) -> tuple[Effect, ...]:
        order = features[np.argsort(-values[features], kind="stable")][:count]
        return tuple(effect(row) for row in order.tolist() if values[row] > 0)

    def effect(row: int) -> Effect:
        on_rival = None if rival is None else float(other[row])
        return Effect(str(graph.nodes[row]), graph.said(row), float(on[row]), on_rival)

    remarks = tuple(_choice(graph, text, rows) for text, rows in named.items() if len(rows) > 1)
    return Opposing(most(on - other), most(other - on), most(-other), remarks)


def named_targets(graph: AttributionGraph, name: str) -> list[int]:
    """Rows of the targets that a name may mean, the most probable first.

    A name is `id:7365`, a target's text, or the text without the blank in front.
    Raises SelectionError, naming those that there are.
    """
    known = _targets(graph)
    names = {
        row: (f"id:{target.token_id}", target.text, target.text.strip())
        for row, target in known.items()
    }
    for way in range(3):
        if found := [row for row, own in names.items() if own[way] == name]:
            return sorted(found, key=lambda row: -(known[row].probability or 0.0))
    texts = dict.fromkeys(repr(target.text) for target in known.values())
    raise SelectionError(
        f"The graph explains no {name!r}: choose one of {', '.join(texts)}, or trace with --target."
    )


def _targets(graph: AttributionGraph) -> dict[int, Target]:
    return dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))


def _choice(graph: AttributionGraph, name: str, rows: list[int]) -> str:
    """Says which of several targets was taken."""
    known = _targets(graph)
    listed = ", ".join(
        str(graph.nodes[row])
        if target.token_id is None or target.probability is None
        else f"id:{target.token_id} ({target.probability:.2g})"
        for row, target in ((row, known[row]) for row in rows)
    )
    return (
        f"{name!r} is the text of {len(rows)} targets, of which the most probable is taken: "
        f"{listed}; name another by its id."
    )


def total_effects(graph: AttributionGraph, target: int) -> Float[ndarray, " node"]:
    """Of every node on one target, over all paths, in units of the target's value.

    Features without a row pass on what they do directly and nothing that reached them.
    """
    total = np.zeros(len(graph))
    per_unit = np.zeros(len(graph))  # effect on the target per unit of a node's row
    per_unit[target] = 1.0
    features = graph.nodes.is_kind(NodeKind.FEATURE)
    start, weights = graph.weights.indptr, graph.weights
    for row in range(len(graph) - 1, -1, -1):
        if features[row]:
            activation = float(graph.nodes.activation[row])
            per_unit[row] = total[row] / activation if activation else 0.0
        edges = slice(start[row], start[row + 1])
        if per_unit[row] and start[row] < start[row + 1]:
            sources = weights.indices[edges]
            total[sources] += per_unit[row] * weights.data[edges].astype(np.float64)
    return total
