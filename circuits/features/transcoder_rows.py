"""The vectors of a set's active features, and its affine skips, on one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.active import LinearPath
from circuits.features.hook_points import MlpPoints
from circuits.features.nonlinearities import JointTopK
from circuits.features.transcoder import Transcoder
from circuits.features.transcoder_layer import TranscoderLayer


@dataclass(frozen=True)
class TranscoderRows:
    """Encoder and decoder rows of a set's active features."""

    transcoders: tuple[Transcoder, ...]  # by layer
    joint: JointTopK | None
    points: MlpPoints
    layer: Int[Tensor, " feat"]
    pos: Int[Tensor, " feat"]
    index: Int[Tensor, " feat"]
    activation: Float[Tensor, " feat"]

    def encoder(self, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        rows = self.points.recording.tokens.new_empty(len(feature), self.points.frozen.d_model)
        for layer in self.layer[feature].unique().tolist():
            here = (self.layer[feature] == layer).nonzero()[:, 0]
            chosen = feature[here]
            encoder = self.transcoders[layer].listened(self.index[chosen], rows)
            rows[here] = self.points.pull_back(layer, self.pos[chosen], encoder)
        return rows

    def decoder(self, layer: int, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        rows = self.points.recording.tokens.new_empty(len(feature), self.points.frozen.d_model)
        for source in self.layer[feature].unique().tolist():
            here = (self.layer[feature] == source).nonzero()[:, 0]
            chosen = feature[here]
            rows[here] = self.transcoders[source].spoken(
                layer - source, self.index[chosen], self.activation[chosen]
            )
        return self.points.written(layer, self.pos[feature], rows)

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        constant = self.transcoders[layer].decoder_bias.to(self.activation)
        for source, skip in self._skips(layer).items():
            read = self.points.constant_input(source)
            if read.any():
                constant = constant + skip.to(constant) @ read
        length = len(self.points.recording.prompt)
        positions = torch.arange(length, device=constant.device)
        return self.points.written(layer, positions, constant.expand(length, -1))

    def linear(self, layer: int) -> dict[int, LinearPath]:
        skips = self._skips(layer).items()
        return {source: AffineSkip(self.points, source, layer, skip) for source, skip in skips}

    def at(self, layer: int) -> TranscoderLayer:
        here = self.layer == layer
        columns = self.pos[here], self.index[here], self.activation[here]
        return TranscoderLayer(self.transcoders[layer], self.joint, self.points, layer, *columns)

    def _skips(self, layer: int) -> dict[int, Tensor]:
        below = enumerate(self.transcoders[: layer + 1])
        skips = {source: transcoder.skip_to(layer - source) for source, transcoder in below}
        return {source: skip for source, skip in skips.items() if skip is not None}


@dataclass(frozen=True)
class AffineSkip:
    """A skip matrix between two layers' residuals: scale[pos] · matrix, norms included."""

    points: MlpPoints
    read: int  # layer
    written: int
    skip: Float[Tensor, "d_model_out d_model"]  # may lie in a file

    @cached_property
    def matrix(self) -> Float[Tensor, "d_model_out d_model"]:
        """The skip with gains and centring of the norms on both sides."""
        like = self.points.recording.tokens
        return self.points.between(self.read, self.written, self.skip.to(like))

    @cached_property
    def scale(self) -> Float[Tensor, " pos"]:
        """The norms' denominators; 0 at context-only positions, whose output is a constant."""
        scale = self.points.scale(self.read, self.written)
        scale[: self.points.recording.prompt.context_only] = 0
        return scale

    def forward(
        self, residual: Float[Tensor, "*part pos d_model"], first: int
    ) -> Float[Tensor, "*part pos d_model"]:
        scale = self.scale[first : first + residual.shape[-2]]
        return (residual @ self.matrix.T).mul_(scale[:, None])

    def transpose(
        self, covector: Float[Tensor, "row pos d_model"], first: int
    ) -> Float[Tensor, "row pos d_model"]:
        scale = self.scale[first : first + covector.shape[1]]
        return (covector @ self.matrix).mul_(scale[:, None])
