"""The features of one transcoder at any activation, as interventions change and measure them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.active import Places
from circuits.features.hook_points import MlpPoints, read_at
from circuits.features.transcoder import JointTopK, JumpReLU, ReLU, Transcoder
from circuits.machine import beside, moved, on_device


@dataclass(frozen=True)
class TranscoderLayer:
    """One layer's transcoder on one prompt; what it is given and gives is where the layer is."""

    transcoder: Transcoder
    joint: JointTopK | None
    points: MlpPoints
    layer: int
    active: Places  # in the order of positions and indices
    activation: Float[Tensor, " feat"]

    @property
    def width(self) -> int:
        return self.transcoder.d_dict

    @property
    def n_written(self) -> int:
        return self.transcoder.n_written

    def rows(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        bias = self.transcoder.encoder_bias
        like = self.points.recording.blocks[self.layer].contribution
        encoder = self.transcoder.encoder_rows(index, like)
        constant = beside(bias[moved(index, bias.device)], like)
        if self.points.has_constant_input(self.layer):
            constant = constant + encoder @ self.points.constant_input(self.layer)
        return self.points.pull_back(self.layer, pos, encoder), constant

    def recorded(
        self, pos: Int[ndarray, " row"], index: Int[ndarray, " row"]
    ) -> Float[Tensor, " row"]:
        """Activations on the prompt; 0 where a feature is not active."""
        own = self.active.pos * self.width + self.active.index
        row = np.searchsorted(own, pos * self.width + index)
        there = row < len(own)
        there[there] = own[row[there]] == (pos * self.width + index)[there]
        found = self.activation.new_zeros(len(pos))
        device = found.device
        active = self.activation.index_select(0, on_device(row[there], device))
        return found.index_copy_(0, on_device(np.flatnonzero(there), device), active)

    def values(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        own, bias = on_device(index, residual.device), self.transcoder.encoder_bias
        inputs = self.points.running_inputs(self.layer, residual)
        values = read_at(inputs, pos, self.transcoder.encoder_rows(own, inputs))
        return values + beside(bias[moved(own, bias.device)], values)

    def activations(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Activations; where a top-k compares features, all features of the layer are computed.

        Where it compares features of several layers, those of other layers are left out.
        """
        nonlinearity = self.transcoder.nonlinearity
        first = self.points.recording.prompt.n_prefix
        if isinstance(nonlinearity, ReLU | JumpReLU) and self.joint is None:
            own = nonlinearity.of(on_device(index, residual.device))
            alone = own(self.values(residual, pos, index))
            return torch.where(on_device(pos >= first, residual.device), alone, 0)
        at = on_device(np.stack([pos, index]), residual.device)
        found = residual.new_empty(len(residual), len(pos))
        for row, one in enumerate(residual):
            inputs = self.points.running_inputs(self.layer, one)
            every = inputs.new_zeros(len(one), self.width)
            every[first:] = nonlinearity(self.transcoder.pre_activations(inputs[first:]))
            if self.joint is not None:
                every = self.joint.candidates(self.layer, every)
            found[row] = every[at[0], at[1]]
        return found

    def written(
        self, offset: int, index: Int[ndarray, " row"], activation: Float[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """Decoder rows; inactive features write nothing, not even the offset of active ones."""
        own = on_device(index, activation.device)
        written = self.transcoder.decoder_rows(offset, own, activation)
        return torch.where((activation != 0)[:, None], written, 0)
