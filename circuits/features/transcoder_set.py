"""A set of transcoders: one per layer of a model, and their active features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.active import ActiveFeatures, LinearPath
from circuits.features.hook_points import MlpPoints, ReadPoint, WritePoint
from circuits.features.labels import FeatureFiles
from circuits.features.transcoder import JointTopK, Transcoder, empty_transcoder
from circuits.features.transcoder_layer import TranscoderLayer
from circuits.model.frozen import Covectors, DamagedWeights, FrozenModel
from circuits.recording.record import Recording
from graphs.core.nodes import Description
from graphs.core.provenance import DictionaryIdentity
from graphs.errors import HeadwaterError


class DictionaryMismatch(HeadwaterError):
    """A dictionary's shapes do not fit the model."""


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
    unlisted: bool = False  # whether files may be missing: cached copies without a list of files

    @property
    def n_prefix(self) -> int | None:
        """Prefix positions, which training left out; None if decided by their tokens."""
        return self.identity.documents and self.identity.documents.n_prefix

    def describe(self, layer: int, index: int) -> Description | None:
        """The description of a feature in the feature files, if any."""
        return None if self.features is None else self.features.read(layer, index)

    def peak_values(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Pre-activations and activations of the widest layer, and a temporary mask."""
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
                f"{len(covered)} of {frozen.n_layers} layers, which may not be all: go online "
                "once, or give the folder of one layer."
            )
        if not missing:
            return self
        return replace(self, layers=(*self.layers, *[empty_transcoder(frozen.d_model)] * missing))

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
                    f"{transcoder.n_written} layers, the model has {frozen.n_layers - layer} from "
                    "there on: choose the dictionary that was trained on this model."
                )

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The active features of this set on a recorded prompt; targets do not matter."""
        del targets
        return self.active(frozen, recording)

    def active(self, frozen: FrozenModel, recording: Recording) -> ActiveFeatures:
        """The active features of this set on a recorded prompt.

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
            rows=TranscoderRows(fitted.layers, self.joint, points, layer, pos, index, activation),
            identity=self.identity,
            found=len(layer),
        )


def _active(points: MlpPoints, layer: int, transcoders: TranscoderSet) -> tuple[Tensor, ...]:
    """Columns layer, pos, index, activation, value, constant of one layer."""
    transcoder = transcoders.layers[layer]
    value = transcoder.pre_activations(points.inputs(layer))
    if not bool(torch.isfinite(value).all()):
        raise DamagedWeights(
            f"Layer {layer} of {transcoders.identity.name!r} has NaN or infinite values: its "
            "files are damaged or not meant for this model."
        )
    # A nonlinearity that chooses among all positions must leave the prefix out.
    first = points.recording.prompt.n_prefix
    activation = torch.zeros_like(value)
    activation[first:] = transcoder.nonlinearity(value[first:])
    if transcoders.joint is not None:
        activation = transcoders.joint.candidates(layer, activation)
    pos, index = activation.nonzero(as_tuple=True)
    encoder_rows = transcoder.encoder_rows(index, value)
    return (
        torch.full_like(pos, layer),
        pos,
        index,
        activation[pos, index],
        value[pos, index],
        encoder_rows @ points.constant_input(layer) + transcoder.encoder_bias.to(value)[index],
    )


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
            encoder = self.transcoders[layer].encoder_rows(self.index[chosen], rows)
            rows[here] = self.points.pull_back(layer, self.pos[chosen], encoder)
        return rows

    def decoder(self, layer: int, feature: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        rows = self.points.recording.tokens.new_empty(len(feature), self.points.frozen.d_model)
        for source in self.layer[feature].unique().tolist():
            here = (self.layer[feature] == source).nonzero()[:, 0]
            chosen = feature[here]
            rows[here] = self.transcoders[source].decoder_rows(
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
    skip: Float[Tensor, "d_model_out d_model"]  # may be mapped from a file

    @cached_property
    def matrix(self) -> Float[Tensor, "d_model_out d_model"]:
        """The skip with gains and centring of the norms on both sides."""
        like = self.points.recording.tokens
        return self.points.between(self.read, self.written, self.skip.to(like))

    @cached_property
    def scale(self) -> Float[Tensor, " pos"]:
        """Factors from the norms' denominators; 0 at prefix positions, whose output is constant."""
        scale = self.points.scale(self.read, self.written)
        scale[: self.points.recording.prompt.n_prefix] = 0
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
