"""Transcoders, per layer and across layers, with and without an affine skip.

Layer l's dictionary reads its MLP's input and writes to layers l, l+1, …, l+n_written-1:

    activation_l = nonlinearity(encoder_l · input_l · read_scale_l + encoder_bias_l)
    output_m     = decoder_bias_m + skip_m · input_m
                 + Σ_l (activation_l + added_{l→m}) · write_scale_{l→m} · decoder_{l→m}

A per-layer transcoder is the case n_written = 1.  Matrices may lie in files, in any number type:
encoders are converted some rows at a time, of decoders only the rows of active features are read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.covectors import Covectors
from circuits.descriptions import FeatureFiles
from circuits.features import ActiveFeatures, LinearPath
from circuits.frozen import DamagedWeights, FrozenModel
from circuits.nonlinearities import Nonlinearity, ReLU
from circuits.points import MlpPoints, ReadPoint, WritePoint
from circuits.recording import Recording
from graphs.descriptions import Description
from graphs.provenance import DictionaryIdentity

CONVERTED_VALUES = 2**26  # of an encoder, at a time


class DictionaryMismatch(ValueError):
    """A dictionary's shapes do not fit the model."""


def pre_activations(
    inputs: Float[Tensor, "*batch d_in"],
    encoder: Float[Tensor, "d_dict d_in"],
    bias: Float[Tensor, " d_dict"],
) -> Float[Tensor, "*batch d_dict"]:
    """encoder · input + bias in the inputs' number type, some rows of the encoder at a time."""
    rows = max(1, CONVERTED_VALUES // max(1, encoder.shape[1]))
    parts = [
        torch.nn.functional.linear(inputs, some.to(inputs), biases.to(inputs))
        for some, biases in zip(encoder.split(rows), bias.split(rows), strict=True)
    ]
    return torch.cat(parts, -1)


@dataclass(frozen=True)
class Transcoder:
    """The dictionary of one layer; row f of every matrix belongs to feature f."""

    encoder: Float[Tensor, "d_dict d_model"]
    encoder_bias: Float[Tensor, " d_dict"]
    decoders: tuple[Float[Tensor, "d_dict d_model"], ...]  # by written layer, its own first
    decoder_bias: Float[Tensor, " d_model"]  # of the output at this layer, added once
    nonlinearity: Nonlinearity
    skip: Float[Tensor, "d_model_out d_model"] | None = None  # output += skip @ input
    higher_skips: tuple[Float[Tensor, "d_model_out d_model"], ...] = ()  # to the layers above
    read_scale: float = 1.0
    write_scales: tuple[Float[Tensor, " d_dict"], ...] | None = None  # by written layer
    added: tuple[Float[Tensor, " d_dict"], ...] | None = None  # by written layer, where active

    @property
    def d_dict(self) -> int:
        """Features."""
        return len(self.encoder_bias)

    @property
    def n_written(self) -> int:
        """Layers written to."""
        return len(self.decoders)

    def skip_to(self, offset: int) -> Float[Tensor, "d_model_out d_model"] | None:
        """The matrix from what is read to the output of the layer that is `offset` above."""
        if offset == 0:
            return self.skip
        return self.higher_skips[offset - 1] if offset <= len(self.higher_skips) else None

    def pre_activations(
        self, inputs: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_dict"]:
        """What the nonlinearity is given, in the number type and on the device of the inputs."""
        return pre_activations(inputs * self.read_scale, self.encoder, self.encoder_bias)

    def listened(
        self, index: Int[Tensor, " row"], like: Float[Tensor, ...]
    ) -> Float[Tensor, "row d_model"]:
        """Encoder rows, as covectors on what is read."""
        return self.encoder[index.to(self.encoder.device)].to(like) * self.read_scale

    def spoken(
        self,
        offset: int,
        index: Int[Tensor, " row"],
        activation: Float[Tensor, " row"],
    ) -> Float[Tensor, "row d_model"]:
        """What features of these activations write to the layer that is `offset` above."""
        place = index.to(self.encoder.device)
        if self.added is not None:
            activation = activation + self.added[offset][place].to(activation)
        if self.write_scales is not None:
            activation = activation * self.write_scales[offset][place].to(activation)
        return activation[:, None] * self.decoders[offset][place].to(activation)

    def written(
        self, offset: int, activation: Float[Tensor, "*batch d_dict"]
    ) -> Float[Tensor, "*batch d_model"]:
        """What all features write to the layer that is `offset` above."""
        if self.added is not None:
            activation = activation + self.added[offset].to(activation) * (activation > 0)
        if self.write_scales is not None:
            activation = activation * self.write_scales[offset].to(activation)
        return activation @ self.decoders[offset].to(activation)


def nothing(d_model: int) -> Transcoder:
    """The transcoder of a layer that a set does not cover: all is error."""
    rows = torch.zeros(0, d_model)
    return Transcoder(rows, torch.zeros(0), (rows,), torch.zeros(d_model), ReLU())


@dataclass(frozen=True)
class JointTopK:
    """The k features of a token, over all layers, of largest activation times decoder norm."""

    k: int
    norms: tuple[Float[Tensor, " d_dict"], ...]

    def candidates(
        self, layer: int, activation: Float[Tensor, "pos d_dict"]
    ) -> Float[Tensor, "pos d_dict"]:
        """Only the features that can be among them."""
        sizes = activation * self.norms[layer].to(activation)
        index = sizes.topk(min(self.k, sizes.shape[1]), dim=1).indices
        return torch.zeros_like(activation).scatter(1, index, activation.gather(1, index))

    def kept(
        self,
        layer: Int[Tensor, " feat"],
        pos: Int[Tensor, " feat"],
        index: Int[Tensor, " feat"],
        activation: Float[Tensor, " feat"],
    ) -> Int[Tensor, " kept"]:
        """Which of the candidates are, in their order."""
        size = activation.clone()
        for number, norm in enumerate(self.norms):
            here = layer == number
            size[here] *= norm[index[here].to(norm.device)].to(size)
        order = torch.argsort(size, descending=True, stable=True)
        order = order[torch.argsort(pos[order], stable=True)]
        counts = torch.bincount(pos)
        rank = torch.arange(len(order), device=pos.device) - (counts.cumsum(0) - counts)[pos[order]]
        return order[rank < self.k].sort().values


@dataclass(frozen=True)
class TranscoderSet:
    """One transcoder per layer, all with the same read and write points."""

    layers: tuple[Transcoder, ...]
    read: ReadPoint
    write: WritePoint
    identity: DictionaryIdentity
    features: FeatureFiles | None = None  # what is known about each feature
    joint: JointTopK | None = None  # chooses among the features of all layers
    partial: bool = False  # whether the model may have more layers
    unlisted: bool = False  # whether files may be missing: copies of which no list is known

    def describe(self, layer: int, index: int) -> Description | None:
        """What the files beside the weights say about a feature."""
        return None if self.features is None else self.features.read(layer, index)

    def numbers(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Pre-activations and activations of the widest layer, and a mask on the way."""
        del frozen
        return 3 * n_tokens * max((layer.d_dict for layer in self.layers), default=0)

    def fitted(self, frozen: FrozenModel) -> TranscoderSet:
        """The set with a transcoder for every layer of the model.

        Raises DictionaryMismatch if it does not fit.
        """
        self.require_fit(frozen)
        missing = frozen.n_layers - len(self.layers)
        covered = [layer for layer, one in enumerate(self.layers) if one.d_dict]
        if self.unlisted and len(covered) < frozen.n_layers:
            raise DictionaryMismatch(
                f"The Hub cannot be reached, and the local cache has {self.identity.name!r} for "
                f"{len(covered)} of {frozen.n_layers} layers, which may not be all: connect once, "
                "or name the folder of one layer."
            )
        if not missing:
            return self
        return replace(self, layers=(*self.layers, *[nothing(frozen.d_model)] * missing))

    def require_fit(self, frozen: FrozenModel) -> None:
        """Raises DictionaryMismatch unless there is a transcoder of the right width per layer."""
        count = len(self.layers)
        if count > frozen.n_layers or (count < frozen.n_layers and not self.partial):
            raise DictionaryMismatch(
                f"The dictionary {self.identity.name!r} has {count} layers, the model "
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
            if layer + transcoder.n_written > frozen.n_layers:
                raise DictionaryMismatch(
                    f"Layer {layer} of the dictionary {self.identity.name!r} writes to "
                    f"{transcoder.n_written} layers, only {frozen.n_layers - layer} follow."
                )

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The features of this set that fire on a recorded prompt, whatever the targets."""
        del targets
        return self.active(frozen, recording)

    def active(self, frozen: FrozenModel, recording: Recording) -> ActiveFeatures:
        """The features of this set that fire on a recorded prompt.

        Raises DictionaryMismatch if it does not fit the model, DamagedWeights for NaN in it.
        """
        fitted = self.fitted(frozen)
        points = MlpPoints(frozen, recording, self.read, self.write)
        columns = [_active(points, i, fitted) for i in range(frozen.n_layers)]
        layer, pos, index, activation, value, constant = (
            torch.cat(column) for column in zip(*columns, strict=True)
        )
        if self.joint is not None:
            kept = self.joint.kept(layer, pos, index, activation)
            layer, pos, index = layer[kept], pos[kept], index[kept]
            activation, value, constant = activation[kept], value[kept], constant[kept]
        written = torch.tensor([t.n_written for t in fitted.layers], device=layer.device)
        return ActiveFeatures(
            layer=layer,
            pos=pos,
            index=index,
            activation=activation,
            value=value,
            constant=constant,
            last_written=layer + written[layer] - 1,
            rows=TranscoderRows(fitted, points, layer, pos, index, activation),
            identity=self.identity,
            found=len(layer),
        )


def _active(points: MlpPoints, layer: int, transcoders: TranscoderSet) -> tuple[Tensor, ...]:
    """Columns layer, pos, index, activation, value, constant of one layer."""
    transcoder = transcoders.layers[layer]
    value = transcoder.pre_activations(points.inputs(layer))
    if not bool(torch.isfinite(value).all()):
        raise DamagedWeights(
            f"Layer {layer} of {transcoders.identity.name!r} holds NaN or infinite values: its "
            "files are damaged or not meant for this model."
        )
    # What is chosen among all positions is not chosen among those without features.
    context = points.recording.prompt.context_only
    activation = torch.zeros_like(value)
    activation[context:] = transcoder.nonlinearity(value[context:])
    if transcoders.joint is not None:
        activation = transcoders.joint.candidates(layer, activation)
    pos, index = activation.nonzero(as_tuple=True)
    listened = transcoder.listened(index, value)
    return (
        torch.full_like(pos, layer),
        pos,
        index,
        activation[pos, index],
        value[pos, index],
        listened @ points.constant_input(layer) + transcoder.encoder_bias.to(value)[index],
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
            encoder = self.transcoders.layers[layer].listened(self.index[chosen], rows)
            rows[here] = self.points.pull_back(layer, self.pos[chosen], encoder)
        return rows

    def decoder(self, layer: int, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        rows = self.points.recording.tokens.new_empty(len(feature), self.points.frozen.d_model)
        for source in self.layer[feature].unique().tolist():
            here = (self.layer[feature] == source).nonzero()[:, 0]
            chosen = feature[here]
            rows[here] = self.transcoders.layers[source].spoken(
                layer - source, self.index[chosen], self.activation[chosen]
            )
        return self.points.written(layer, self.pos[feature], rows)

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        constant = self.transcoders.layers[layer].decoder_bias.to(self.activation)
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

    def _skips(self, layer: int) -> dict[int, Tensor]:
        below = enumerate(self.transcoders.layers[: layer + 1])
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
