"""Opposing features: those that raise a prediction and those that lower it, over all paths.

    total[s] = weights[target, s] + Σ_t total[t] · weights[t, s] / activation[t]     t: features

The total effect is what the target's value loses when the node is ablated and nothing is frozen, as
`graphs.predict` gives it; both assume that features stay linear and active.

Why one prediction and not another is a difference of two total effects: a feature helps by raising
one or by lowering the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.select import SelectionError
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import Target
from graphs.core.records import as_json
from graphs.naming.names import Names


@dataclass(frozen=True)
class Effect:
    """Total effects of one feature on a prediction, and on its rival if there is one."""

    node: str
    label: str  # by `graphs.naming`; may be empty
    on: float  # total effect, in units of the target's value
    on_rival: float | None

    @property
    def difference(self) -> float:
        """Effect on the prediction less effect on the rival."""
        return self.on - (self.on_rival or 0.0)


@dataclass(frozen=True, repr=False)
class Opposing(Brief):
    """Features by their total effect, largest first."""

    helping: tuple[Effect, ...]  # raise the prediction more than its rival
    hindering: tuple[Effect, ...]  # raise the rival more, or lower the prediction
    suppressing: tuple[Effect, ...]  # lower the rival; empty without one
    remarks: tuple[str, ...] = ()  # which target was taken, where several have the same text

    def as_json(self) -> dict[str, object]:
        """The same as JSON-ready data."""
        return as_json(self, {"label": "says"})


def opposing(
    graph: AttributionGraph, target: str, rival: str | None = None, count: int = 10
) -> Opposing:
    """Features that raise a prediction, that lower it, and that lower its rival.

    Both name targets of the graph (`named_targets`), the most probable of several.  Raises
    SelectionError for unknown names, for a rival that is the prediction itself and for a graph
    without activations.
    """
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    if np.any(np.isnan(graph.nodes.activation[features])):
        raise SelectionError(
            "This graph has no activations of its features, so effects over all paths cannot be "
            "computed: trace the prompt with headwater."
        )
    named = {text: named_targets(graph, text) for text in (target, rival) if text is not None}
    if rival is not None and named[rival][0] == named[target][0]:
        raise SelectionError(f"{rival!r} is the prediction itself: give another rival.")
    on = total_effects(graph, named[target][0])
    other = np.zeros(len(graph)) if rival is None else total_effects(graph, named[rival][0])

    def largest(values: Float[ndarray, " node"]) -> tuple[Effect, ...]:
        order = features[np.argsort(-values[features], kind="stable")][:count]
        return tuple(effect(row) for row in order.tolist() if values[row] > 0)

    names = Names(graph)

    def effect(row: int) -> Effect:
        on_rival = None if rival is None else float(other[row])
        return Effect(str(graph.nodes[row]), names.label(row), float(on[row]), on_rival)

    remarks = tuple(_choice(graph, text, rows) for text, rows in named.items() if len(rows) > 1)
    return Opposing(largest(on - other), largest(other - on), largest(-other), remarks)


def named_targets(graph: AttributionGraph, name: str) -> list[int]:
    """Rows of the targets that a name matches, the most probable first.

    A name is `id:7365`, a target's text, or the text without its leading space.
    Raises SelectionError, listing the graph's targets.
    """
    known = _targets(graph)
    names = {
        row: (f"id:{target.token_id}", target.text, target.text.strip())
        for row, target in known.items()
    }
    for form in range(3):
        if found := [row for row, forms in names.items() if forms[form] == name]:
            return sorted(found, key=lambda row: -(known[row].probability or 0.0))
    texts = dict.fromkeys(repr(target.text) for target in known.values())
    raise SelectionError(
        f"The graph has no target {name!r}: choose one of {', '.join(texts)}, or trace again "
        "with --target."
    )


def _targets(graph: AttributionGraph) -> dict[int, Target]:
    return dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))


def _choice(graph: AttributionGraph, name: str, rows: list[int]) -> str:
    """A sentence on which of several targets was taken."""
    known = _targets(graph)
    listed = ", ".join(
        str(graph.nodes[row])
        if target.token_id is None or target.probability is None
        else f"id:{target.token_id} ({target.probability:.2g})"
        for row, target in ((row, known[row]) for row in rows)
    )
    return (
        f"{len(rows)} targets have the text {name!r}, the most probable is taken: {listed}; "
        "name another by its id."
    )


def total_effects(graph: AttributionGraph, target: int) -> Float[ndarray, " node"]:
    """Total effect of every node on one target, in units of the target's value.

    Features without a row have no known inputs, so paths begin at them.
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
