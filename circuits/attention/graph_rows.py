"""The nodes of a graph as targets of a sweep."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.interventions.experiment import Experiment
from circuits.machine import on_device
from circuits.model.frozen import Covectors


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
