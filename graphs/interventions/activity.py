"""Activity: how active groups of features are after an intervention, and which it removed.

    kept(group) = Σ over members  influence · after / before  /  Σ influence

with a member's activation on the prompt before, and after as it was measured:

    after = before + change of its value, or 0 if the value is not above the feature's threshold
    after = factor · own + offset     of a feature that is edited, whose own activation is that on
                                      the prompt in a held block, and that after above it
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.influence import influence_shares
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.provenance import NEURONS
from graphs.interventions.changes import Intervention


def activations_after(
    graph: AttributionGraph,
    intervention: Intervention,
    measured: Float[ndarray, " node"],  # change of each node's value; nan: unknown
    through: int,  # last block that was held; -1: none
) -> Float[ndarray, " node"]:
    """The activation of every feature after an intervention; nan where it is unknown."""
    before, value = graph.nodes.activation, graph.nodes.value
    threshold = np.zeros(len(graph))
    if graph.responses is not None:
        threshold = graph.responses.threshold
    elif graph.provenance.dictionary.kind == NEURONS:  # which may be negative
        threshold = np.full(len(graph), np.nan)
    after = np.where(value + measured <= threshold, 0.0, before + measured)
    for change in intervention.changes:
        if change.node in graph:
            row = graph.find(change.node)
            own = before if graph.nodes.layer[row] <= through else after
            after[row] = change.factor * own[row] + change.offset
    return np.where(graph.nodes.is_kind(NodeKind.FEATURE), after, np.nan)


def kept_activity(
    graph: AttributionGraph, rows: Int[ndarray, " member"], after: Float[ndarray, " node"]
) -> float | None:
    """How active a group is, as a share of before; None if that is known of no member."""
    before = graph.nodes.activation[rows]
    ratio = np.divide(after[rows], before, out=np.full(len(rows), np.nan), where=before != 0)
    known = np.isfinite(ratio)
    weight = influence_shares(graph)[rows] * known
    if not weight.sum() > 0:
        return None
    return float(weight[known] @ ratio[known] / weight.sum())


def is_removed(
    graph: AttributionGraph, rows: Int[ndarray, " member"], intervention: Intervention
) -> bool:
    """Whether all members of a group were set to zero."""
    zero = {
        str(change.node)
        for change in intervention.changes
        if change.factor == 0 and change.offset == 0
    }
    return len(rows) > 0 and all(str(graph.nodes[row]) in zero for row in rows.tolist())
