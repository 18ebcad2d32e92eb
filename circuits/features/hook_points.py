"""Where a dictionary reads the residual stream and where it writes to it, as linear maps.

Read points (x is what the MLP's norm reads, n its denominator on this prompt):

    residual     x                      raw residual stream
    normalised   x / n                  before the norm's gain (LayerNorm: centred)
    mlp-input    x / n · gain + bias    what the MLP module receives

Write points: `mlp-output` is what the MLP module returns, `contribution` what is added to the
residual stream.  They differ where a norm follows the MLP (Gemma).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording


class ReadPoint(StrEnum):
    RESIDUAL = "residual"
    NORMALISED = "normalised"
    MLP_INPUT = "mlp-input"


class WritePoint(StrEnum):
    MLP_OUTPUT = "mlp-output"
    CONTRIBUTION = "contribution"


def by_position(
    residual: Float[Tensor, "batch pos d_model"],
    pos: Int[Tensor, " row"],
    read: Callable[[Tensor, Tensor], Tensor],
) -> Float[Tensor, "batch row"]:
    """What each row reads at its position: one product for all rows of a position.

    `read` receives the residuals there (batch, d_model) and the indices of these rows.
    """
    found = residual.new_empty(len(residual), len(pos))
    for place in pos.unique().tolist():
        here = (pos == place).nonzero()[:, 0]
        found[:, here] = read(residual[:, place], here)
    return found


@dataclass(frozen=True)
class MlpPoints:
    """The read and write maps of every layer's MLP on one prompt."""

    frozen: FrozenModel
    recording: Recording
    read: ReadPoint
    write: WritePoint

    def inputs(self, layer: int) -> Float[Tensor, "pos d_model"]:
        """What the dictionary of this layer reads."""
        block = self.recording.blocks[layer]
        if self.read == ReadPoint.MLP_INPUT:
            return block.mlp_input
        pos = torch.arange(len(block.mlp_residual), device=block.mlp_residual.device)
        return self.linear_input(layer, pos, block.mlp_residual)

    def running_inputs(
        self, layer: int, residual: Float[Tensor, "*part d_model"]
    ) -> Float[Tensor, "*part d_model"]:
        """What the dictionary reads from other residuals, with their own denominators."""
        if self.read == ReadPoint.RESIDUAL:
            return residual
        norm = self.frozen.blocks[layer].mlp_norm
        denominator = norm.denominator(residual)
        if self.read == ReadPoint.MLP_INPUT:
            return norm.linear(residual, denominator) + norm.bias
        return norm.centre(residual) / denominator[..., None]

    def linear_input(
        self, layer: int, pos: Int[Tensor, " row"], residual: Float[Tensor, "*part row d_model"]
    ) -> Float[Tensor, "*part row d_model"]:
        """What the dictionary reads from (parts of) the residual here, without biases."""
        if self.read == ReadPoint.RESIDUAL:
            return residual
        norm = self.frozen.blocks[layer].mlp_norm
        denominator = self.recording.blocks[layer].mlp_denominator[pos]
        if self.read == ReadPoint.MLP_INPUT:
            return norm.linear(residual, denominator)
        return norm.centre(residual) / denominator[:, None]

    def has_constant_input(self, layer: int) -> bool:
        """Whether the dictionary reads anything from a zero residual."""
        return self.read == ReadPoint.MLP_INPUT and self.frozen.blocks[layer].mlp_norm.biased

    def constant_input(self, layer: int) -> Float[Tensor, " d_model"]:
        """What the dictionary reads from a zero residual."""
        bias = self.frozen.blocks[layer].mlp_norm.bias
        return bias if self.read == ReadPoint.MLP_INPUT else torch.zeros_like(bias)

    def pull_back(
        self, layer: int, pos: Int[Tensor, " row"], covector: Float[Tensor, "*target row d_model"]
    ) -> Float[Tensor, "*target row d_model"]:
        """Covectors on what is read, as covectors on the residual at these positions."""
        norm = self.frozen.blocks[layer].mlp_norm
        denominator = self.recording.blocks[layer].mlp_denominator[pos]
        if self.read == ReadPoint.RESIDUAL:
            return covector
        if self.read == ReadPoint.MLP_INPUT:
            return norm.transpose(covector, denominator)
        return norm.centre(covector) / denominator[:, None]

    def written(
        self, layer: int, pos: Int[Tensor, " row"], vector: Float[Tensor, "*part row d_model"]
    ) -> Float[Tensor, "*part row d_model"]:
        """Vectors that the dictionary writes, as vectors added to the residual."""
        norm = self._write_norm(layer)
        if norm is None:
            return vector
        return norm.linear(vector, self.recording.blocks[layer].post_mlp_denominator[pos])

    def pull_back_written(
        self, layer: int, pos: Int[Tensor, " row"], covector: Float[Tensor, "*target row d_model"]
    ) -> Float[Tensor, "*target row d_model"]:
        """Transpose of `written`."""
        norm = self._write_norm(layer)
        if norm is None:
            return covector
        return norm.transpose(covector, self.recording.blocks[layer].post_mlp_denominator[pos])

    def between(
        self, read: int, written: int, matrix: Float[Tensor, "d_model d_model"]
    ) -> Float[Tensor, "d_model d_model"]:
        """A matrix from read to written vectors, as a map between residuals.

        It includes gains and centring of the norms; their denominators are in `scale`.
        """
        norm = self.frozen.blocks[read].mlp_norm
        if self.read == ReadPoint.MLP_INPUT:
            matrix = norm.centre(matrix * norm.gain)
        elif self.read == ReadPoint.NORMALISED:
            matrix = norm.centre(matrix)
        post = self._write_norm(written)
        return matrix if post is None else post.centre(matrix.T).T * post.gain[:, None]

    def scale(self, read: int, written: int) -> Float[Tensor, " pos"]:
        """The factor of such a matrix at each position."""
        blocks = self.recording.blocks
        scale = torch.ones_like(blocks[read].mlp_denominator)
        if self.read != ReadPoint.RESIDUAL:
            scale = scale / blocks[read].mlp_denominator
        if self._write_norm(written) is not None:
            scale = scale / blocks[written].post_mlp_denominator
        return scale

    def _write_norm(self, layer: int):
        if self.write == WritePoint.CONTRIBUTION:
            return None
        return self.frozen.blocks[layer].post_mlp_norm
