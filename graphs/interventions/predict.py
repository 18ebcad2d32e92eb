"""Prediction: what a graph says an intervention will change.

A changed source passes on its direct effects in proportion:

    change[t] = Σ_s weights[t, s] · relative[s]          relative[s] = new / old - 1

In a layer that is held, features stay as they are unless they are edited, so this is all.  Above
it a feature follows what reaches it, and passes it on:

    relative[s] = change[s] / activation[s]

which takes every feature as linear and as long active as it is needed; the model need not agree,
and how far it does is what interventions measure.  Features without a row pass nothing on.
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
    """Change of every feature's and target's value; the layers up to `through` are held.

    Held at `graph.provenance.model.n_layers` or above is the whole model.  nan: the graph does not
    say, since the intervention changes what is not in it, or the node has no row.
    """
    nodes = graph.nodes
    factor, offset, known = _edited(graph, interventions)
    edited = (factor != 1) | (offset != 0)
    activation = np.where(nodes.is_kind(NodeKind.FEATURE), nodes.activation, np.nan)[:, None]
    shift = np.divide(offset, activation, out=np.zeros_like(offset), where=offset != 0)
    relative = factor - 1 + shift
    change = np.zeros_like(relative)
    held = np.asarray(through)
    features = nodes.is_kind(NodeKind.FEATURE) & graph.expanded
    for layer in range(graph.provenance.model.n_layers):
        rows = np.flatnonzero(features & (nodes.layer == layer))
        if len(rows) == 0:
            continue
        change[rows] = graph.weights[rows] @ relative
        runs = layer > held
        follows = 1 + change[rows] / activation[rows]
        relative[rows] = np.where(
            runs,
            factor[rows] * follows + shift[rows] - 1,
            np.where(edited[rows], relative[rows], 0),
        )
    targets = graph.target_rows()
    change[targets] = graph.weights[targets] @ relative
    told = np.zeros(len(graph), dtype=bool)
    told[targets] = True
    change[~(told | features)] = np.nan
    change[:, ~known] = np.nan
    return change.T


def _edited(
    graph: AttributionGraph, interventions: Sequence[Intervention]
) -> tuple[
    Float[ndarray, "node intervention"], Float[ndarray, "node intervention"], Bool[ndarray, " one"]
]:
    """Factors, offsets, and whether the graph holds all that an intervention changes."""
    factor = np.ones((len(graph), len(interventions)))
    offset = np.zeros_like(factor)
    known = np.ones(len(interventions), dtype=bool)
    for column, one in enumerate(interventions):
        known[column] = not one.pushes
        for change in one.changes:
            if change.node in graph:
                row = graph.find(change.node)
                factor[row, column], offset[row, column] = change.factor, change.offset
            else:
                known[column] = False
    return factor, offset, known
