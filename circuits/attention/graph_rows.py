"""The nodes of a graph as a sweep knows them: columns of sources, covectors of targets."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.interventions.experiment import Experiment
from circuits.machine import on_device
from circuits.model.frozen import Covectors
from graphs.core.nodes import NodeKind


def columns_of(experiment: Experiment) -> Int[ndarray, " node"]:
    """The column of each node of the graph among the sources; -1 for targets."""
    sources = experiment.sources
    nodes, prompt = experiment.graph.nodes, experiment.local.recording.prompt
    first, after = np.array(sources.first_column), len(prompt) - prompt.n_prefix
    error = nodes.is_kind(NodeKind.ERROR)
    column = np.select(
        [nodes.is_kind(kind) for kind in (NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS)],
        [nodes.pos, nodes.pos + len(prompt), nodes.layer + sources.bias_column],
        -1,
    ).astype(np.int64)
    column[error] = first[nodes.layer[error] + 1] - after + nodes.pos[error] - prompt.n_prefix
    feature = experiment.row >= 0
    column[feature] = sources.feature_column[experiment.row[feature]]
    return column


def covectors_of(
    experiment: Experiment, nodes: Int[ndarray, " row"]
) -> tuple[Covectors, Float[Tensor, " row"]]:
    """Covectors of nodes, which ascend, and what biases add to their values."""
    graph, features, targets = experiment.graph, experiment.local.features, experiment.local.targets
    rows = experiment.row[nodes[experiment.row[nodes] >= 0]]
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    behind = np.searchsorted(graph.target_rows(), nodes[len(rows) :])
    parts = [
        features.covectors(rows),
        targets.covectors.take(behind),
    ]
    constants = (
        column.index_select(0, on_device(own, column.device))
        for column, own in ((features.constant, rows), (targets.constant, behind))
    )
    back = np.concatenate([np.argsort(order), np.arange(len(rows), len(nodes))])
    constant = torch.cat([*constants])
    return Covectors.joined(parts).take(back), constant[on_device(back, constant.device)]
