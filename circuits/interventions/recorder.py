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
from circuits.machine import moved, on_device
from circuits.recording.record import entering_attention
from graphs.core.provenance import FeatureReading


class Recorder:
    """Measures in one pass how the values of a graph's nodes change.

    Where a layer lies it reads covectors, which are fewer numbers than residuals.
    """

    def __init__(self, experiment: Experiment, hold: Hold) -> None:
        self.experiment, self.hold = experiment, hold
        graph, frozen = experiment.graph, experiment.local.frozen
        shape = len(hold.through), len(graph)
        self.changes = torch.full(shape, torch.nan, dtype=frozen.dtype, device=frozen.device)

    def enter(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Record the changes of targets that read the residual that enters attention."""
        local = self.experiment.local
        here = local.targets.read_at(layer, "attention")
        if len(here):
            recorded = entering_attention(local.frozen, local.recording, layer)
            self._read_targets(here, layer, residual, recorded)

    def read(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Record the changes of features and targets that read what this layer's MLP reads."""
        experiment, held = self.experiment, self.hold.at(layer)
        features, recorded = experiment.local.features, experiment.local.recording.blocks[layer]
        own, first, end = experiment.row, *features.first[layer : layer + 2]
        chosen = np.flatnonzero((own >= first) & (own < end))
        chosen = chosen[np.argsort(own[chosen])]
        here = experiment.local.targets.read_at(layer, "mlp")
        if len(chosen):
            change = residual - recorded.mlp_residual
            self._set(chosen, self._of_features(layer, own[chosen], residual, change, held))
        if len(here):
            self._read_targets(here, layer, residual, recorded.mlp_residual)

    def read_final(self, final: Float[Tensor, "batch pos d_model"]) -> None:
        """Record the changes of targets that read the final norm's output."""
        local = self.experiment.local
        here = local.targets.read_at(local.frozen.n_layers, "unembedding")
        if len(here):
            self._read_targets(here, local.frozen.n_layers, final, local.recording.final_residual)

    def _read_targets(
        self,
        here: Int[ndarray, " target"],
        layer: int,
        residual: Float[Tensor, "batch pos d_model"],
        recorded: Float[Tensor, "pos d_model"],
    ) -> None:
        """Record the changes of targets that read a residual, held or running."""
        targets, held = self.experiment.local.targets, self.hold.at(layer)
        own = targets.covectors.take(here)
        pos, covectors = own.pos, moved(own.covector, residual.device)
        linear = read_at(residual - recorded, pos, covectors)
        running = linear if held.all() else self._running(here, layer, linear, residual)
        changes = torch.where(on_device(held[:, None], residual.device), linear, running)
        self._set(self.experiment.graph.target_rows()[here], changes)

    def _running(
        self,
        here: Int[ndarray, " target"],
        layer: int,
        linear: Float[Tensor, "batch target"],
        residual: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch target"]:
        """Changes of targets with what is in front of them running; `linear`: with it held."""
        local, targets = self.experiment.local, self.experiment.local.targets
        place = on_device(here, targets.value.device)
        numbers = (column.index_select(0, place) for column in (targets.value, targets.constant))
        value, constant = (moved(one, residual.device) for one in numbers)
        scale = local.norm_scale(here, residual)
        own = value - constant
        changes = linear * scale + own * (scale - 1)
        features = {
            column: one
            for column, one in enumerate(targets.readings[row] for row in here.tolist())
            if isinstance(one, FeatureReading) and one.what == "feature"
        }
        if features:
            pos, index = np.array([(one.pos, one.index) for one in features.values()]).T
            now = local.features.at(layer).values(residual, pos, index)
            columns = on_device(np.array([*features]), residual.device)
            changes.index_copy_(1, columns, now - value.index_select(0, columns))
        return changes

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
            linear = read_at(change, pos, moved(features.encoder(row), change.device))
        if not held.all():
            values = features.at(layer).values(residual, pos, index)
            value = features.value.index_select(0, on_device(row, features.value.device))
            running = values - moved(value, values.device)
        if held.all() or not held.any():
            return linear if held.any() else running
        return torch.where(on_device(held[:, None], residual.device), linear, running)

    def _set(self, nodes: Int[ndarray, " some"], changes: Float[Tensor, "batch some"]) -> None:
        place = on_device(nodes, self.changes.device)
        self.changes.index_copy_(1, place, moved(changes, self.changes.device))
