"""Recorder: how the values of a graph's nodes change in a pass."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.features.hook_points import by_position
from circuits.interventions.constrained_run import Hold
from circuits.interventions.experiment import Experiment
from circuits.machine import on_device


class Recorder:
    """Measures in one pass how the values of a graph's nodes change."""

    def __init__(self, experiment: Experiment, hold: Hold) -> None:
        self.experiment, self.hold = experiment, hold
        graph = experiment.graph
        self.changes = torch.full(
            (len(hold.through), len(graph)), torch.nan, dtype=experiment.local.frozen.dtype
        ).to(experiment.local.frozen.device)
        self.target_rows = torch.from_numpy(graph.target_rows()).to(self.changes.device)

    def read(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> None:
        """Record the changes of features and targets that read this layer's residual."""
        experiment, held = self.experiment, self.hold.at(layer)
        features = experiment.local.features
        chosen = (experiment.row >= 0).nonzero()[:, 0]
        chosen = chosen[features.layer[experiment.row[chosen]] == layer]
        row = experiment.row[chosen]
        pos, own = features.pos[row], experiment.local.recording.blocks[layer].mlp_residual
        if bool(held.any()) and len(row):
            encoder = features.rows.encoder(layer, row)
            self.changes[:, chosen] = by_position(
                residual - own, pos, lambda change, rows: change @ encoder[rows].T
            )
        if not bool(held.all()) and len(row):
            values = features.rows.at(layer).values(residual, pos, features.index[row])
            change = values - features.value[row]
            self.changes[:, chosen] = torch.where(held[:, None], self.changes[:, chosen], change)
        covectors = experiment.local.targets.covectors
        here = np.flatnonzero(covectors.layer == layer)
        if len(here):
            vectors = covectors.covector[here]
            pos = on_device(covectors.pos[here], residual.device)
            self.changes[:, self.target_rows[here]] = by_position(
                residual - own, pos, lambda change, rows: change @ vectors[rows].T
            )

    def read_targets(self, final: Float[Tensor, "batch d_model"]) -> None:
        """Record the changes of targets that read the final norm's output."""
        experiment, n_layers = self.experiment, self.experiment.local.frozen.n_layers
        targets, recording = experiment.local.targets, experiment.local.recording
        here = np.flatnonzero(targets.covectors.layer == n_layers)
        own = recording.final_denominator[recording.position]
        ratio = own / experiment.local.frozen.final_norm.denominator(final)
        ratio = torch.where(self.hold.at(n_layers), torch.ones_like(ratio), ratio)
        values = (final @ targets.covectors.covector[here].T) * ratio[:, None]
        self.changes[:, self.target_rows[here]] = (
            values + targets.constant[here] - targets.value[here]
        )
