"""What interventions add to each layer of a pass, one intervention per copy of the prompt.

A changed feature adds what it writes at its new activation less what it writes at its original one,
to every layer that it writes to.  Its original activation is the recorded one if its layer is held
at the recording, else the one in this pass, other edits included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.active import FeatureLayer
from circuits.features.hook_points import MlpPoints
from circuits.features.points import WritePoint
from circuits.interventions.constrained_run import Additions, Hold
from circuits.interventions.experiment import Experiment
from circuits.machine import moved, on_device
from circuits.recording.record import Recording
from graphs.core.nodes import NodeKind
from graphs.interventions.changes import Change, Intervention

ROWS = 2**13  # vectors gathered at once


@dataclass(frozen=True)
class _Changed:
    """Changed features of one layer, over all copies."""

    copy: Int[ndarray, " row"]
    pos: Int[ndarray, " row"]
    index: Int[ndarray, " row"]
    factor: Float[Tensor, " row"]
    offset: Float[Tensor, " row"]


class _PendingSums:
    """Pending additions, summed by layer, where each lies."""

    def __init__(self, recording: Recording, batch: int, length: int) -> None:
        self.recording, self.shape = recording, (batch, length)
        self.totals: dict[int, Tensor] = {}

    def add(
        self,
        layer: int,
        copy: Int[ndarray, " row"],
        pos: Int[ndarray, " row"],
        vector: Float[Tensor, "row d_model"],
    ) -> None:
        if not len(pos):
            return
        if layer not in self.totals:
            like = self.recording.blocks[layer].contribution
            self.totals[layer] = like.new_zeros(*self.shape, like.shape[1])
        total = self.totals[layer]
        place = on_device(copy * self.shape[1] + pos, total.device)
        total.flatten(0, 1).index_add_(0, place, moved(vector, total.device))

    def pop(self, layer: int) -> Float[Tensor, "batch pos d_model"] | None:
        return self.totals.pop(layer, None)


class EditVisitor:
    """The visitor of one pass, which computes additions (`constrained_run.run`)."""

    def __init__(
        self,
        experiment: Experiment,
        interventions: Sequence[Intervention],
        hold: Hold,
        length: int,
    ) -> None:
        """`length`: tokens of the copies, which may be more than the prompt's."""
        self.experiment, self.hold = experiment, hold
        self.changed = _changed_by_layer(experiment.local.recording, interventions, length)
        sums = experiment.local.recording, len(interventions), length
        self.output, self.contribution = _PendingSums(*sums), _PendingSums(*sums)
        self.shift: dict[int, Tensor] = {}  # by layer: residual less the recorded one
        self._scale_errors(interventions)
        self._steer(interventions, length)

    def __call__(self, layer: int, residual: Float[Tensor, "batch pos d_model"]) -> Additions:
        """The additions at a layer."""
        if layer in self.changed:
            self._write(layer, residual, self.changed[layer])
        held = self.hold.at(layer)
        contribution = self.contribution.pop(layer)
        linear = self.experiment.linear
        if any(linear) and held.any():
            self.shift[layer] = (
                residual - self.experiment.local.recording.blocks[layer].mlp_residual
            )
            for read, path in linear[layer].items():
                shift = self.shift[read]
                mask = on_device(held[:, None, None], shift.device)
                through = path.forward(shift * mask, 0)
                contribution = through if contribution is None else contribution + through
        return Additions(self.output.pop(layer), contribution)

    def _write(self, layer: int, residual: Tensor, changed: _Changed) -> None:
        at = self.experiment.local.features.at(layer)
        own = self._original_activations(layer, at, residual, changed)
        new = changed.factor * own + changed.offset
        for above in range(at.n_written):
            for start in range(0, len(own), ROWS):
                some = slice(start, start + ROWS)
                index = changed.index[some]
                vector = at.written(above, index, new[some]) - at.written(above, index, own[some])
                self._add(layer + above, at.points, changed.copy[some], changed.pos[some], vector)

    def _original_activations(
        self, layer: int, at: FeatureLayer, residual: Tensor, changed: _Changed
    ) -> Float[Tensor, " row"]:
        """Activations of the changed features before the change."""
        held = self.hold.at(layer)[changed.copy]
        own, device = residual.new_empty(len(changed.pos)), residual.device
        if held.any():
            recorded = at.recorded(changed.pos[held], changed.index[held])
            own.index_copy_(0, on_device(np.flatnonzero(held), device), recorded)
        if not held.all():
            runs = ~held
            keys = changed.pos[runs] * at.width + changed.index[runs]
            unique, place = np.unique(keys, return_inverse=True)
            found = at.activations(residual, unique // at.width, unique % at.width)
            cell = on_device(changed.copy[runs] * len(unique) + place, device)
            running = found.flatten().index_select(0, cell)
            own.index_copy_(0, on_device(np.flatnonzero(runs), device), running)
        return own

    def _add(
        self,
        layer: int,
        points: MlpPoints,
        copy: Int[ndarray, " row"],
        pos: Int[ndarray, " row"],
        vector: Float[Tensor, "row d_model"],
    ) -> None:
        """Queue a vector; a norm after the MLP is applied here if held, else by the model."""
        if points.write == WritePoint.CONTRIBUTION:
            self.contribution.add(layer, copy, pos, vector)
            return
        held = self.hold.at(layer)[copy]
        rows, runs = np.flatnonzero(held), np.flatnonzero(~held)
        vector = moved(vector, self.experiment.local.frozen.blocks[layer].device)
        own, there = on_device(np.stack([rows, pos[rows]]), vector.device)
        written = points.written(layer, there, vector.index_select(0, own))
        self.contribution.add(layer, copy[rows], pos[rows], written)
        others = vector.index_select(0, on_device(runs, vector.device))
        self.output.add(layer, copy[runs], pos[runs], others)

    def _scale_errors(self, interventions: Sequence[Intervention]) -> None:
        scaled: dict[int, list[tuple[int, Change]]] = defaultdict(list)
        for copy, one in enumerate(interventions):
            for change in one.changes:
                if change.node.kind == NodeKind.ERROR and change.node.layer is not None:
                    scaled[change.node.layer].append((copy, change))
        for layer, changes in scaled.items():
            error = self.experiment.error(layer)
            copy = np.array([copy for copy, _ in changes])
            pos = np.array([change.node.pos for _, change in changes])
            less = np.array([[change.factor - 1] for _, change in changes])
            factor = on_device(less, error.device, error.dtype)
            own = error.index_select(0, on_device(pos, error.device))
            self.contribution.add(layer, copy, pos, factor * own)

    def _steer(self, interventions: Sequence[Intervention], length: int) -> None:
        like = self.experiment.local.recording.tokens
        for copy, one in enumerate(interventions):
            for steer in one.steering:
                pos = np.arange(steer.pos, length if steer.onward else steer.pos + 1)
                vector = torch.as_tensor(steer.vector).to(like, non_blocking=True) * steer.amount
                copies = np.full_like(pos, copy)
                self.contribution.add(steer.layer, copies, pos, vector.expand(len(pos), -1))


def _changed_by_layer(
    recording: Recording, interventions: Sequence[Intervention], length: int
) -> dict[int, _Changed]:
    rows: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    rules: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for copy, one in enumerate(interventions):
        for change in one.changes:
            layer, pos, index = change.node.layer, change.node.pos, change.node.index
            if layer is None or pos is None or index is None:
                continue  # an error
            later = range(len(recording.prompt), length) if change.onward else ()
            places = [(copy, place, index) for place in (pos, *later)]
            rows[layer] += places
            rules[layer] += [(change.factor, change.offset)] * len(places)

    def changed(layer: int) -> _Changed:
        like = recording.blocks[layer].contribution
        rule = on_device(np.array(rules[layer]), like.device, like.dtype).T
        return _Changed(*np.array(rows[layer]).T, *rule)

    return {layer: changed(layer) for layer in rows}
