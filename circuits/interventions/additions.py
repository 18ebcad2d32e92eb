"""What interventions add to each layer of a pass, one intervention per copy of the prompt.

A changed feature adds what it writes at its new activation less what it writes at its original one,
to every layer that it writes to.  Its original activation is the recorded one if its layer is held
at the recording, else the one in this pass, other edits included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.active import FeatureLayer
from circuits.features.hook_points import MlpPoints, WritePoint
from circuits.interventions.constrained_run import Additions, Hold
from circuits.interventions.experiment import Experiment
from circuits.recording.record import Recording
from graphs.core.nodes import NodeKind
from graphs.interventions.changes import Change, Intervention

ROWS = 2**13  # vectors gathered at once


@dataclass(frozen=True)
class _Changed:
    """Changed features of one layer, over all copies."""

    copy: Int[Tensor, " row"]
    pos: Int[Tensor, " row"]
    index: Int[Tensor, " row"]
    factor: Float[Tensor, " row"]
    offset: Float[Tensor, " row"]


class _PendingSums:
    """Pending additions, summed by layer."""

    def __init__(self, like: Float[Tensor, "batch pos d_model"]) -> None:
        self.like = like
        self.totals: dict[int, Tensor] = {}

    def add(
        self,
        layer: int,
        copy: Int[Tensor, " row"],
        pos: Int[Tensor, " row"],
        vector: Float[Tensor, "row d_model"],
    ) -> None:
        if not len(pos):
            return
        if layer not in self.totals:
            self.totals[layer] = torch.zeros_like(self.like)
        self.totals[layer].index_put_((copy, pos), vector, accumulate=True)

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
        like = experiment.local.recording.tokens[:1].expand(len(interventions), length, -1)
        self.output, self.contribution = _PendingSums(like), _PendingSums(like)
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
        if any(linear) and bool(held.any()):
            self.shift[layer] = (
                residual - self.experiment.local.recording.blocks[layer].mlp_residual
            )
            for read, path in linear[layer].items():
                through = path.forward(self.shift[read] * held[:, None, None], 0)
                contribution = through if contribution is None else contribution + through
        return Additions(self.output.pop(layer), contribution)

    def _write(self, layer: int, residual: Tensor, changed: _Changed) -> None:
        at = self.experiment.local.features.rows.at(layer)
        own = self._original_activations(layer, at, residual, changed)
        new = changed.factor * own + changed.offset
        for above in range(at.n_written):
            for some in torch.arange(len(own), device=own.device).split(ROWS):
                index = changed.index[some]
                vector = at.written(above, index, new[some]) - at.written(above, index, own[some])
                self._add(layer + above, at.points, changed.copy[some], changed.pos[some], vector)

    def _original_activations(
        self, layer: int, at: FeatureLayer, residual: Tensor, changed: _Changed
    ) -> Float[Tensor, " row"]:
        """Activations of the changed features before the change."""
        held = self.hold.at(layer)[changed.copy]
        own = residual.new_empty(len(changed.pos))
        own[held] = at.recorded(changed.pos[held], changed.index[held])
        if not bool(held.all()):
            runs = ~held
            unique, place = (changed.pos[runs] * at.width + changed.index[runs]).unique(
                return_inverse=True
            )
            pos, index = unique // at.width, unique % at.width
            own[runs] = at.activations(residual, pos, index)[changed.copy[runs], place]
        return own

    def _add(
        self,
        layer: int,
        points: MlpPoints,
        copy: Int[Tensor, " row"],
        pos: Int[Tensor, " row"],
        vector: Float[Tensor, "row d_model"],
    ) -> None:
        """Queue a vector; a norm after the MLP is applied here if held, else by the model."""
        if points.write == WritePoint.CONTRIBUTION:
            self.contribution.add(layer, copy, pos, vector)
            return
        held = self.hold.at(layer)[copy]
        written = points.written(layer, pos[held], vector[held])
        self.contribution.add(layer, copy[held], pos[held], written)
        self.output.add(layer, copy[~held], pos[~held], vector[~held])

    def _scale_errors(self, interventions: Sequence[Intervention]) -> None:
        scaled: dict[int, list[tuple[int, Change]]] = defaultdict(list)
        for copy, one in enumerate(interventions):
            for change in one.changes:
                if change.node.kind == NodeKind.ERROR and change.node.layer is not None:
                    scaled[change.node.layer].append((copy, change))
        for layer, changes in scaled.items():
            error = self.experiment.error(layer)
            copy = torch.tensor([copy for copy, _ in changes], device=error.device)
            pos = torch.tensor([change.node.pos for _, change in changes], device=error.device)
            factor = error.new_tensor([change.factor for _, change in changes])
            self.contribution.add(layer, copy, pos, (factor - 1)[:, None] * error[pos])

    def _steer(self, interventions: Sequence[Intervention], length: int) -> None:
        like = self.experiment.local.recording.tokens
        for copy, one in enumerate(interventions):
            for steer in one.steering:
                pos = torch.arange(steer.pos, length if steer.onward else steer.pos + 1)
                vector = torch.as_tensor(steer.vector).to(like) * steer.amount
                self.contribution.add(
                    steer.layer,
                    torch.full_like(pos, copy).to(like.device),
                    pos.to(like.device),
                    vector.expand(len(pos), -1),
                )


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
    like = recording.tokens
    return {
        layer: _Changed(
            *torch.tensor(rows[layer], device=like.device).unbind(1),
            *like.new_tensor(rules[layer]).unbind(1),
        )
        for layer in rows
    }
