"""The features of one transcoder at any activation, as interventions change and measure them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.hook_points import MlpPoints, by_position
from circuits.features.transcoder import JointTopK, JumpReLU, ReLU, Transcoder


@dataclass(frozen=True)
class TranscoderLayer:
    """One layer's transcoder on one prompt; `pos`, `index`, `activation` are of active features."""

    transcoder: Transcoder
    joint: JointTopK | None
    points: MlpPoints
    layer: int
    pos: Int[Tensor, " feat"]
    index: Int[Tensor, " feat"]
    activation: Float[Tensor, " feat"]

    @property
    def width(self) -> int:
        return self.transcoder.d_dict

    @property
    def n_written(self) -> int:
        return self.transcoder.n_written

    def recorded(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        """Activations on the prompt; 0 where a feature is not active."""
        same = (pos[:, None] == self.pos) & (index[:, None] == self.index)
        return (same * self.activation).sum(1)

    def values(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[Tensor, " row"],
        index: Int[Tensor, " row"],
    ) -> Float[Tensor, "batch row"]:
        def read(there: Tensor, rows: Tensor) -> Tensor:
            inputs = self.points.running_inputs(self.layer, there)
            return inputs @ self.transcoder.encoder_rows(index[rows], inputs).T

        values, bias = by_position(residual, pos, read), self.transcoder.encoder_bias
        return values + bias[index.to(bias.device)].to(values)

    def activations(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[Tensor, " row"],
        index: Int[Tensor, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Activations; where a top-k compares features, all features of the layer are computed.

        Where it compares features of several layers, those of other layers are left out.
        """
        nonlinearity = self.transcoder.nonlinearity
        first = self.points.recording.prompt.n_prefix
        if isinstance(nonlinearity, ReLU | JumpReLU) and self.joint is None:
            alone = nonlinearity.of(index)(self.values(residual, pos, index))
            return torch.where(pos < first, 0, alone)
        found = residual.new_empty(len(residual), len(pos))
        for row, one in enumerate(residual):
            inputs = self.points.running_inputs(self.layer, one)
            every = inputs.new_zeros(len(one), self.width)
            every[first:] = nonlinearity(self.transcoder.pre_activations(inputs[first:]))
            if self.joint is not None:
                every = self.joint.candidates(self.layer, every)
            found[row] = every[pos, index]
        return found

    def written(
        self, offset: int, index: Int[Tensor, " row"], activation: Float[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """Decoder rows; inactive features write nothing, not even the offset of active ones."""
        written = self.transcoder.decoder_rows(offset, index, activation)
        return torch.where((activation != 0)[:, None], written, 0)
