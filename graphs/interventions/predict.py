"""Prediction: the effects of an intervention, computed from a graph's weights.

Direct effects of a changed source change in proportion:

    change[t] = Σ_s weights[t, s] · relative[s]          relative[s] = new / old - 1

In frozen layers features stay as they are unless they are edited, so this is all.  Above them a
feature follows its inputs and passes the change on:

    relative[s] = change[s] / activation[s]

which assumes that features stay linear and active; interventions measure how far the model agrees.
Features without a row do not follow their inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.interventions.changes import Intervention


def predict(
    graph: AttributionGraph, interventions: Sequence[Intervention], through: Sequence[int]
) -> Float[ndarray, "intervention node"]:
    """Change of every feature's and target's value, with the layers up to `through` frozen.

    From `graph.provenance.model.n_layers` on, the whole model is frozen.  nan: unknown, since the
    intervention changes nodes outside the graph, or the node has no row.
    """
    nodes = graph.nodes
    factor, offset, known = _edited(graph, interventions)
    edited = (factor != 1) | (offset != 0)
    activation = np.where(nodes.is_kind(NodeKind.FEATURE), nodes.activation, np.nan)[:, None]
    shift = np.divide(offset, activation, out=np.zeros_like(offset), where=offset != 0)
    relative = factor - 1 + shift
    change = np.zeros_like(relative)
    frozen = np.asarray(through)
    features = nodes.is_kind(NodeKind.FEATURE) & graph.expanded
    for layer in range(graph.provenance.model.n_layers):
        rows = np.flatnonzero(features & (nodes.layer == layer))
        if len(rows) == 0:
            continue
        change[rows] = graph.weights[rows] @ relative
        runs = layer > frozen
        follows = 1 + change[rows] / activation[rows]
        relative[rows] = np.where(
            runs,
            factor[rows] * follows + shift[rows] - 1,
            np.where(edited[rows], relative[rows], 0),
        )
    targets = graph.target_rows()
    change[targets] = graph.weights[targets] @ relative
    predicted = features.copy()
    predicted[targets] = True
    change[~predicted] = np.nan
    change[:, ~known] = np.nan
    return change.T


def _edited(
    graph: AttributionGraph, interventions: Sequence[Intervention]
) -> tuple[
    Float[ndarray, "node intervention"], Float[ndarray, "node intervention"], Bool[ndarray, " one"]
]:
    """Factors, offsets, and whether all nodes that an intervention changes are in the graph."""
    factor = np.ones((len(graph), len(interventions)))
    offset = np.zeros_like(factor)
    known = np.ones(len(interventions), dtype=bool)
    for column, one in enumerate(interventions):
        known[column] = not one.steering
        for change in one.changes:
            if change.node in graph:
                row = graph.find(change.node)
                factor[row, column], offset[row, column] = change.factor, change.offset
            else:
                known[column] = False
    return factor, offset, known
