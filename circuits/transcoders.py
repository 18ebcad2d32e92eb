"""Transcoders, per layer and across layers, with and without an affine skip.

Layer l's dictionary reads its MLP's input and writes to layers l, l+1, …, l+written-1:

    activation_l = nonlinearity(encoder_l · input_l + encoder_bias_l)
    output_m     = decoder_bias_m + skip_m · input_m + Σ_l activation_l · decoder_l[:, m-l]

A per-layer transcoder is the case written = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.covectors import Covectors
from circuits.descriptions import FeatureFiles
from circuits.features import ActiveFeatures
from circuits.frozen import FrozenModel
from circuits.nonlinearities import Nonlinearity
from circuits.points import MlpPoints, ReadPoint, WritePoint
from circuits.recording import Recording
from graphs.descriptions import Description
from graphs.provenance import DictionaryIdentity


class DictionaryMismatch(ValueError):
    """A dictionary's shapes do not fit the model."""


@dataclass(frozen=True)
class Transcoder:
    """The dictionary of one layer; row f of every matrix belongs to feature f."""

    encoder: Float[Tensor, "d_dict d_model"]
    encoder_bias: Float[Tensor, " d_dict"]
    decoder: Float[Tensor, "d_dict written d_model"]
    decoder_bias: Float[Tensor, " d_model"]  # of the output at this layer, added once
    nonlinearity: Nonlinearity
    skip: Float[Tensor, "d_model_out d_model"] | None = None  # output += skip @ input


@dataclass(frozen=True)
class TranscoderSet:
    """One transcoder per layer, all with the same read and write points."""

    layers: tuple[Transcoder, ...]
    read: ReadPoint
    write: WritePoint
    identity: DictionaryIdentity
    features: FeatureFiles | None = None  # what is known about each feature

    def describe(self, layer: int, index: int) -> Description | None:
        """What the files beside the weights say about a feature."""
        return None if self.features is None else self.features.read(layer, index)

    def require_fit(self, frozen: FrozenModel) -> None:
        """Raises DictionaryMismatch unless there is a transcoder of the right width per layer."""
        if len(self.layers) != frozen.n_layers:
            raise DictionaryMismatch(
                f"The dictionary {self.identity.name!r} has {len(self.layers)} layers, the model "
                f"has {frozen.n_layers}: choose the dictionary that was trained on this model."
            )
        for layer, transcoder in enumerate(self.layers):
            width = transcoder.encoder.shape[1]
            if width != frozen.d_model:
                raise DictionaryMismatch(
                    f"Layer {layer} of the dictionary {self.identity.name!r} reads {width} "
                    f"dimensions, the model has {frozen.d_model}: choose the dictionary that was "
                    "trained on this model."
                )
            if layer + transcoder.decoder.shape[1] > frozen.n_layers:
                raise DictionaryMismatch(
                    f"Layer {layer} of the dictionary {self.identity.name!r} writes to "
                    f"{transcoder.decoder.shape[1]} layers, only {frozen.n_layers - layer} follow."
                )

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The features of this set that fire on a recorded prompt, whatever the targets."""
        del targets
        self.require_fit(frozen)
        points = MlpPoints(frozen, recording, self.read, self.write)
        columns = [_active(points, i, layer) for i, layer in enumerate(self.layers)]
        layer, pos, index, activation, value, constant = (
            torch.cat(column) for column in zip(*columns, strict=True)
        )
        written = torch.tensor([len(t.decoder[0]) for t in self.layers], device=layer.device)
        return ActiveFeatures(
            layer=layer,
            pos=pos,
            index=index,
            activation=activation,
            value=value,
            constant=constant,
            last_written=layer + written[layer] - 1,
            rows=TranscoderRows(self, points, layer, pos, index, activation),
            identity=self.identity,
            found=len(layer),
        )


def _active(points: MlpPoints, layer: int, transcoder: Transcoder) -> tuple[Tensor, ...]:
    """Columns layer, pos, index, activation, value, constant of one layer."""
    inputs = points.inputs(layer)
    value = inputs @ transcoder.encoder.T + transcoder.encoder_bias
    activation = transcoder.nonlinearity(value)
    activation[: points.recording.prompt.context_only] = 0
    pos, index = activation.nonzero(as_tuple=True)
    bias = transcoder.encoder[index] @ points.constant_input(layer)
    return (
        torch.full_like(pos, layer),
        pos,
        index,
        activation[pos, index],
        value[pos, index],
        bias + transcoder.encoder_bias[index],
    )


@dataclass(frozen=True)
class TranscoderRows:
    """Encoder and decoder rows of a set's active features."""

    transcoders: TranscoderSet
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
            encoder = self.transcoders.layers[layer].encoder[self.index[chosen]]
            rows[here] = self.points.pull_back(layer, self.pos[chosen], encoder)
        return rows

    def decoder(self, layer: int, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        rows = self.points.recording.tokens.new_empty(len(feature), self.points.frozen.d_model)
        for source in self.layer[feature].unique().tolist():
            here = (self.layer[feature] == source).nonzero()[:, 0]
            chosen = feature[here]
            decoder = self.transcoders.layers[source].decoder[self.index[chosen], layer - source]
            rows[here] = self.activation[chosen, None] * decoder
        return self.points.written(layer, self.pos[feature], rows)

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        transcoder = self.transcoders.layers[layer]
        constant = transcoder.decoder_bias
        if transcoder.skip is not None:
            constant = constant + transcoder.skip @ self.points.constant_input(layer)
        length = len(self.points.recording.prompt)
        positions = torch.arange(length, device=constant.device)
        return self.points.written(layer, positions, constant.expand(length, -1))

    def linear(self, layer: int) -> AffineSkip | None:
        skip = self.transcoders.layers[layer].skip
        return None if skip is None else AffineSkip(self.points, layer, skip)


@dataclass(frozen=True)
class AffineSkip:
    """A transcoder's skip matrix between its read and write points; none at context positions."""

    points: MlpPoints
    layer: int
    skip: Float[Tensor, "d_model_out d_model"]

    def forward(
        self, residual: Float[Tensor, "*part pos d_model"], first: int
    ) -> Float[Tensor, "*part pos d_model"]:
        pos = torch.arange(first, first + residual.shape[-2], device=residual.device)
        read = self.points.linear_input(self.layer, pos, residual)
        added = self.points.written(self.layer, pos, read @ self.skip.T)
        added[..., : max(0, self.points.recording.prompt.context_only - first), :] = 0
        return added

    def transpose(
        self, covector: Float[Tensor, "row pos d_model"], first: int
    ) -> Float[Tensor, "row pos d_model"]:
        pos = torch.arange(first, first + covector.shape[1], device=covector.device)
        read = self.points.pull_back_written(self.layer, pos, covector) @ self.skip
        pulled = self.points.pull_back(self.layer, pos, read)
        pulled[:, : max(0, self.points.recording.prompt.context_only - first)] = 0
        return pulled
