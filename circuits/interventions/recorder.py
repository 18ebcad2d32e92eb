"""Recorder: how the values of a graph's nodes change in a pass."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.hook_points import read_at
from circuits.interventions.constrained_run import Hold
from circuits.interventions.experiment import Experiment
from circuits.machine import on_device


class Recorder:
    """Measures in one pass how the values of a graph's nodes change."""

    def __init__(self, experiment: Experiment, hold: Hold) -> None:
        self.experiment, self.hold = experiment, hold
        graph, frozen = experiment.graph, experiment.local.frozen
        shape = len(hold.through), len(graph)
        self.changes = torch.full(shape, torch.nan, dtype=frozen.dtype, device=frozen.device)

    def read(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Record the changes of features and targets that read this layer's residual."""
        experiment, held = self.experiment, self.hold.at(layer)
        features, covectors = experiment.local.features, experiment.local.targets.covectors
        own, first, end = experiment.row, *features.first[layer : layer + 2]
        chosen = np.flatnonzero((own >= first) & (own < end))
        chosen = chosen[np.argsort(own[chosen])]
        here = np.flatnonzero(covectors.layer == layer)
        if not len(chosen) and not len(here):
            return
        change = residual - experiment.local.recording.blocks[layer].mlp_residual
        if len(chosen):
            self._set(chosen, self._of_features(layer, own[chosen], residual, change, held))
        if len(here):
            vectors = covectors.covector.index_select(0, on_device(here, residual.device))
            self._set_targets(here, read_at(change, covectors.pos[here], vectors))

    def read_targets(self, final: Float[Tensor, "batch d_model"]) -> None:
        """Record the changes of targets that read the final norm's output."""
        experiment, n_layers = self.experiment, self.experiment.local.frozen.n_layers
        targets, recording = experiment.local.targets, experiment.local.recording
        own = recording.final_denominator[recording.position]
        ratio = own / experiment.local.frozen.final_norm.denominator(final)
        held = on_device(self.hold.at(n_layers), ratio.device)
        ratio = torch.where(held, torch.ones_like(ratio), ratio)
        here = np.flatnonzero(targets.covectors.layer == n_layers)
        at = on_device(here, final.device)
        values = (final @ targets.covectors.covector.index_select(0, at).T) * ratio[:, None]
        added = targets.constant.index_select(0, at) - targets.value.index_select(0, at)
        self._set_targets(here, values + added)

    def _of_features(
        self,
        layer: int,
        row: Int[ndarray, " row"],
        residual: Float[Tensor, "batch pos d_model"],
        change: Float[Tensor, "batch pos d_model"],
        held: Bool[ndarray, " batch"],
    ) -> Float[Tensor, "batch row"]:
        """Changes of features of one layer: with its norm held in some copies, running in others.

        `change` is that of the residual.
        """
        features = self.experiment.local.features
        pos, index = features.on_host.pos[row], features.on_host.index[row]
        linear = running = residual
        if held.any():
            linear = read_at(change, pos, features.encoder(row))
        if not held.all():
            values = features.at(layer).values(residual, pos, index)
            running = values - features.value.index_select(0, on_device(row, residual.device))
        if held.all() or not held.any():
            return linear if held.any() else running
        return torch.where(on_device(held[:, None], residual.device), linear, running)

    def _set(self, nodes: Int[ndarray, " some"], changes: Float[Tensor, "batch some"]) -> None:
        self.changes.index_copy_(1, on_device(nodes, changes.device), changes)

    def _set_targets(self, which: Int[ndarray, " some"], changes: Tensor) -> None:
        self._set(self.experiment.graph.target_rows()[which], changes)
