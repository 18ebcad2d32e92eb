"""Recomputed rows: rows of a graph computed again in its model, compared with those of its file.

Sums of rows (`graphs.core.soundness`) do not detect edges exchanged within a row.  So all targets
and the most influential expanded features are swept again, with all their weights:

    difference[t] = (Σ |weights[t, s] - new[t, s]| + |lost[t] - rest[t]|) / Σ_s |new[t, s]|

over the edges s that the graph has, with lost = dropped_absolute and rest the absolute sum of the
weights that it does not have.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from circuits.attribution.rows import Sweeper, no_rows, prepare_sweep
from circuits.attribution.sources import Sources
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64
from circuits.recording.precision import Precision
from graphs.analysis.influence import influence
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.core.report import RowsReport

FEATURES = 8  # whose rows are computed again, as are those of all targets
# Sums in another order differ by 1e-13, 4e-7 and 3e-3 at most (tiny models, atlas, Gemma 3 270M on
# one machine, November 2026); the graph may come from another device.
TF32_LIMIT = 0.05  # rows swept in TF32 are off by up to 0.02 on a GPU
LIMITS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.05}


def rows_report(experiment: Experiment, count: int = FEATURES) -> RowsReport:
    """The largest difference of a row, and of activations and values."""
    graph = experiment.graph
    features = _strongest(graph, count)
    with exactly():
        sweeper = prepare_sweep(experiment.local)
        new = _swept(experiment, sweeper, features)
    column = _columns(graph, sweeper.sources)
    checked = np.concatenate([graph.target_rows(), features])
    dense = new[column[checked]].toarray()
    return RowsReport(
        rows=len(checked),
        difference=max(
            _difference(graph, row, whole, column)
            for row, whole in zip(checked.tolist(), dense, strict=True)
        ),
        values=_values(experiment),
        limit=TF32_LIMIT
        if graph.provenance.precision == Precision.TF32
        else LIMITS[experiment.local.frozen.dtype],
    )


def _strongest(graph: AttributionGraph, count: int) -> Int[ndarray, " chosen"]:
    """Expanded features of most influence."""
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE) & graph.expanded)
    return rows[np.argsort(-influence(graph)[rows], kind="stable")[:count]]


def _swept(
    experiment: Experiment, sweeper: Sweeper, features: Int[ndarray, " chosen"]
) -> csr_array:
    """Whole rows of all targets and of these features; columns are those of the sources."""
    rows = no_rows(sweeper, kept_share=1.0)
    sweeper.add_targets(rows)
    if len(features):
        sweeper.add_features(experiment.row[features], rows, lambda _: None)
    return rows.matrix()


def _columns(graph: AttributionGraph, sources: Sources) -> Int[ndarray, " node"]:
    """Column of each node of the graph among sources and targets; -1: none."""
    found, targets = sources.columns(graph.nodes), graph.target_rows()
    found[targets] = len(sources.nodes) + np.arange(len(targets))
    return found


def _difference(
    graph: AttributionGraph,
    row: int,
    new: Float[ndarray, " column"],
    column: Int[ndarray, " node"],
) -> float:
    """Difference of one row, as a share of its absolute sum."""
    edges = slice(graph.weights.indptr[row], graph.weights.indptr[row + 1])
    places = column[graph.weights.indices[edges]]
    there = np.where(places >= 0, new[places], 0.0).astype(np.float64)
    total = float(np.abs(new, dtype=np.float64).sum())
    rest = total - float(np.abs(there).sum())
    difference = np.abs(graph.weights.data[edges] - there).sum() + abs(
        graph.dropped_absolute[row] - rest
    )
    return float(difference) / (total or 1.0)


def _values(experiment: Experiment) -> float:
    """Largest difference of an activation or a value from the model's, over the largest."""
    graph, features = experiment.graph, experiment.local.features
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    own = experiment.row[rows]
    activation, value = features.numbers[:2]
    of_targets = in_float64(experiment.local.targets.value).numpy()
    pairs = (
        (graph.nodes.activation[rows], activation[own]),
        (graph.nodes.value[rows], value[own]),
        (graph.nodes.value[graph.target_rows()], of_targets),
    )
    found = [0.0]
    for stated, model in pairs:
        if len(model):
            found.append(float(np.abs(stated - model).max() / (np.abs(model).max() or 1.0)))
    return max(found)
