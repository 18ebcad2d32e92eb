"""A set of transcoders: one per layer of a model, and their active features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.active import ActiveFeatures, LinearPath, Places
from circuits.features.hook_points import MlpPoints
from circuits.features.kept_in import KeptIn
from circuits.features.labels import FeatureFiles
from circuits.features.placed import bytes_in, moves_to, placed
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.streamed import BUFFERS, streamed
from circuits.features.transcoder import (
    Competing,
    JointTopK,
    Transcoder,
    empty_transcoder,
    in_parts,
)
from circuits.features.transcoder_layer import TranscoderLayer
from circuits.machine import (
    beside,
    gathered,
    is_accelerator,
    moved,
    on_device,
    on_host,
)
from circuits.model.frozen import Covectors, DamagedWeights, FrozenModel
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import Description
from graphs.core.provenance import DictionaryIdentity
from graphs.errors import HeadwaterError

TOGETHER = 2**28  # activations of neighbouring layers, on an accelerator: 1 GB in float32


class DictionaryMismatch(HeadwaterError):
    """A dictionary's shapes do not fit the model."""


@dataclass(frozen=True, repr=False)
class TranscoderSet(Brief):
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

    def beside(
        self, frozen: FrozenModel, memory: int | None = None, kept_in: KeptIn = KeptIn.AUTO
    ) -> TranscoderSet:
        """The set beside the blocks of a model, so that traces do not have to copy it.

        By default, where an accelerator has no room for twice as much as it would get, within
        `memory` bytes in all, layers stay in their files, and traces stream them.  Raises NoRoom if
        they are to be on a device that cannot hold them.
        """
        devices = [block.device for block in frozen.blocks[: len(self.layers)]]
        needed: Counter[torch.device] = Counter()
        for device, own in zip(devices, self.layers, strict=True):
            needed[device] += bytes_in(own)
        go = {device for device, size in needed.items() if moves_to(device, size, memory, kept_in)}
        return self._placed([device if device in go else None for device in devices])

    def streams(self, frozen: FrozenModel, layer: int) -> bool:
        """Whether a layer's encoder is sent to the layer's device part by part."""
        device, own = frozen.blocks[layer].device, self.layers[layer]
        return is_accelerator(device) and own.encoder.device != device and own.d_dict > 0

    def stream_values(self, frozen: FrozenModel) -> int:
        """Values of parts of encoders on a device at once; 0 if none is streamed."""
        streaming = [n for n in range(len(self.layers)) if self.streams(frozen, n)]
        parts = [in_parts(self.layers[layer].encoder)[0].numel() for layer in streaming]
        return (BUFFERS + 1) * max(parts, default=0)

    def device_bytes(self, frozen: FrozenModel) -> int:
        """What it takes on accelerators: all that is there, or what streams through at once."""
        there = (n for n, one in enumerate(self.layers) if is_accelerator(one.encoder.device))
        resident = sum(bytes_in(self.layers[layer]) for layer in there)
        return resident + self.stream_values(frozen) * frozen.unembedding.element_size()

    def on(self, device: torch.device) -> TranscoderSet:
        """The set with all its matrices on a device."""
        return self._placed([device] * len(self.layers))

    def _placed(self, devices: list[torch.device | None]) -> TranscoderSet:
        """The set with the matrices of each layer on a device, or as they are."""
        if not any(devices):
            return self
        joint = self.joint
        if joint is not None:
            joint = replace(joint, norms=tuple(map(placed, joint.norms, devices)))
        return replace(self, layers=tuple(map(placed, self.layers, devices)), joint=joint)

    def peak_values(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Pre-activations and activations of the widest layer, a mask, and what is streamed."""
        widest = max((layer.d_dict for layer in self.layers), default=0)
        return 3 * n_tokens * widest + self.stream_values(frozen)

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
        empty = [empty_transcoder(frozen.d_model, block.device) for block in frozen.blocks]
        return replace(self, layers=(*self.layers, *empty[-missing:]))

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

    @property
    def covered(self) -> tuple[bool, ...]:
        """By layer: whether features write there; a set may leave layers out."""
        found = [False] * len(self.layers)
        for layer, transcoder in enumerate(self.layers):
            if transcoder.d_dict:
                for written in range(layer, layer + transcoder.n_written):
                    found[written] = True
        return tuple(found)

    def activate(
        self, frozen: FrozenModel, recording: Recording, targets: Covectors
    ) -> ActiveFeatures:
        """The active features of this set on a recorded prompt; targets do not matter."""
        del targets
        return self.active(frozen, recording)

    def at(self, frozen: FrozenModel, recording: Recording, layer: int) -> TranscoderLayer:
        """All features that read at a layer, none of them active.  Raises DictionaryMismatch."""
        own = self.fitted(frozen).layers[layer]
        points = MlpPoints(frozen, recording, self.read, self.write)
        none = recording.blocks[layer].contribution[:0, 0]
        return TranscoderLayer(own, self.joint, points, layer, Places.of([]), none)

    def active(self, frozen: FrozenModel, recording: Recording) -> ActiveFeatures:
        """The active features of this set on a recorded prompt.

        Raises DictionaryMismatch if it does not fit the model, DamagedWeights for NaN in it.
        """
        fitted = self.fitted(frozen)
        points = MlpPoints(frozen, recording, self.read, self.write)
        found, home = list(_active(points, fitted)), frozen.device
        flags = [flag[None] for part in found for flag in part.finite]
        finite = gathered(flags, home).tolist()
        if not all(finite):
            raise DamagedWeights(
                f"Layer {finite.index(False)} of {self.identity.name!r} has NaN or infinite "
                "values: its files are damaged or not meant for this model."
            )
        layer, pos, index, activation, value, constant, threshold = (
            gathered(column, home) for column in zip(*(part.columns for part in found), strict=True)
        )
        if self.joint is not None:
            kept = self.joint.kept(layer, pos, index, activation, len(recording.prompt))
            layer, pos, index = layer[kept], pos[kept], index[kept]
            activation, value, constant = activation[kept], value[kept], constant[kept]
            # All layers compete at a position.
            threshold = _least(torch.zeros_like(layer), pos, activation, 1, len(recording.prompt))
        return ActiveFeatures(
            layer=layer,
            pos=pos,
            index=index,
            activation=activation,
            value=value,
            constant=constant,
            threshold=threshold,
            reads_norm=tuple(map(points.reads_norm, range(frozen.n_layers))),
            covered=fitted.covered,
            reach=tuple(number + t.n_written - 1 for number, t in enumerate(fitted.layers)),
            rows=_rows(fitted, points, layer, pos, index, activation),
            identity=self.identity,
            found=len(layer),
        )


class _Found(NamedTuple):
    """Active features of some layers."""

    finite: list[Tensor]  # by layer: whether all its values are
    columns: tuple[Tensor, ...]  # layer, pos, index, activation, value, constant, threshold


def _active(points: MlpPoints, transcoders: TranscoderSet) -> Iterator[_Found]:
    """Active features of all layers: of several together on an accelerator, which asks less."""
    first, frozen = points.recording.prompt.n_prefix, points.frozen
    streaming = [transcoders.streams(frozen, n) for n in range(len(transcoders.layers))]
    arriving = _arriving(points, transcoders, streaming) if any(streaming) else None
    values: list[Tensor] = []  # by layer (pos, d_dict)
    activations: list[Tensor] = []
    for layer, transcoder in enumerate(transcoders.layers):
        own = arriving if streaming[layer] else None
        value = transcoder.pre_activations(points.inputs(layer), own)
        # A nonlinearity that chooses among all positions must leave the prefix out.
        activation = torch.zeros_like(value)
        activation[first:] = transcoder.nonlinearity(value[first:])
        if transcoders.joint is not None:
            activation = transcoders.joint.candidates(layer, activation)
        values.append(value)
        activations.append(activation)
        device, above = value.device, min(layer + 1, frozen.n_layers - 1)
        most = TOGETHER if is_accelerator(device) else 0
        last = above == layer or frozen.blocks[above].device != device
        if last or sum(one.numel() for one in values) > most:
            numbers = range(layer + 1 - len(values), layer + 1)
            yield _gathered(points, transcoders, numbers, values, activations)
            values, activations = [], []


def _arriving(
    points: MlpPoints, transcoders: TranscoderSet, streaming: list[bool]
) -> Iterator[Tensor]:
    """Parts of all encoders that are streamed, in order: those of a layer follow the one below."""
    layers = [layer for layer, own in enumerate(streaming) if own]
    parts = (
        (part, points.recording.blocks[layer].contribution)
        for layer in layers
        for part in in_parts(transcoders.layers[layer].encoder)
    )
    return streamed(
        parts, max(in_parts(transcoders.layers[layer].encoder)[0].nbytes for layer in layers)
    )


def _gathered(
    points: MlpPoints,
    transcoders: TranscoderSet,
    numbers: range,
    values: list[Tensor],
    activations: list[Tensor],
) -> _Found:
    """Active features of neighbouring layers."""
    layers = [transcoders.layers[number] for number in numbers]
    n_pos, device = len(values[0]), values[0].device
    widths = np.array([one.d_dict for one in layers])
    starts = (widths * n_pos).cumsum() - widths * n_pos  # of each layer's cells
    flat = _joined([one.flatten() for one in activations])
    cell = flat.nonzero()[:, 0]
    number = torch.bucketize(cell, on_device(starts[1:], device), right=True)
    place = cell - on_device(starts, device)[number]
    width = on_device(widths, device)[number]
    pos, index = place // width.clamp(min=1), place % width.clamp(min=1)
    biases = [beside(one.encoder_bias, values[0]) for one in layers]
    bias = _joined(biases)
    own = on_device(widths.cumsum() - widths, device)[number] + index
    constant = bias[own]
    if points.has_constant_input(numbers[0]):
        ends = np.searchsorted(cell.cpu().numpy(), [*starts, flat.numel()])
        for at, start, end in zip(numbers, ends, ends[1:], strict=False):
            rows = transcoders.layers[at].encoder_rows(index[start:end], constant)
            constant[start:end] += rows @ points.constant_input(at)
    activation = flat[cell]
    pairs = zip(layers, biases, strict=True)
    threshold = _joined([one.nonlinearity.limits(like) for one, like in pairs])[own]
    if any(isinstance(one.nonlinearity, Competing) for one in layers):
        least = _least(number, pos, activation, len(layers), n_pos)
        threshold = torch.where(threshold == torch.inf, least, threshold)
    return _Found(
        [one.isfinite().all() for one in values],
        (
            number + numbers[0],
            pos,
            index,
            activation,
            _joined([one.flatten() for one in values])[cell],
            constant,
            threshold,
        ),
    )


def _least(
    layer: Int[Tensor, " feat"],
    pos: Int[Tensor, " feat"],
    activation: Float[Tensor, " feat"],
    n_layers: int,
    n_pos: int,
) -> Float[Tensor, " feat"]:
    """The smallest activation at each feature's layer and position, with which it competes."""
    place = layer * n_pos + pos
    found = activation.new_full((n_layers * n_pos,), torch.inf)
    return found.scatter_reduce_(0, place, activation, "amin")[place]


def _joined(parts: list[Tensor]) -> Tensor:
    """One tensor of all; no copy of a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True)
class TranscoderRows:
    """Encoder and decoder rows of a set's active features."""

    whole: TranscoderSet
    transcoders: tuple[Transcoder, ...]  # by layer, at least of what is active, with the model
    points: MlpPoints
    pos: Int[Tensor, " feat"]
    index: Int[Tensor, " feat"]  # among the features of these transcoders
    activation: Float[Tensor, " feat"]

    def encoder(
        self, ends: Int[ndarray, " end"], feature: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        pos, index = self.pos.index_select(0, feature), self.index.index_select(0, feature)
        found = [self.activation.new_empty(0, self.points.frozen.d_model)]
        for layer, (start, end) in enumerate(pairwise(ends.tolist())):
            if start < end:
                rows = self.transcoders[layer].encoder_rows(index[start:end], self._like(layer))
                found.append(self.points.pull_back(layer, pos[start:end], rows))
        return gathered(found, self.activation.device)

    def decoder(
        self, layer: int, written: int, feature: Int[Tensor, " row"] | slice
    ) -> Float[Tensor, "row d_model"]:
        activation = moved(self.activation[feature], self._like(written).device)
        rows = self.transcoders[layer].decoder_rows(
            written - layer, self.index[feature], activation
        )
        return self.points.written(written, self.pos[feature], rows)

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        constant = beside(self.transcoders[layer].decoder_bias, self._like(layer))
        for source, skip in self._skips(layer).items():
            if self.points.has_constant_input(source):
                read = moved(self.points.constant_input(source), constant.device)
                constant = constant + beside(skip, constant) @ read
        length = len(self.points.recording.prompt)
        positions = torch.arange(length, device=constant.device)
        return self.points.written(layer, positions, constant.expand(length, -1))

    def linear(self, layer: int) -> dict[int, LinearPath]:
        skips = self._skips(layer).items()
        return {source: AffineSkip(self.points, source, layer, skip) for source, skip in skips}

    def at(self, layer: int, active: Places, activation: Float[Tensor, " feat"]) -> TranscoderLayer:
        own, joint = self.whole.layers[layer], self.whole.joint
        activation = moved(activation, self._like(layer).device)
        return TranscoderLayer(own, joint, self.points, layer, active, activation)

    def _like(self, layer: int) -> Tensor:
        """A tensor of the type of the model's numbers, where a layer lies."""
        return self.points.recording.blocks[layer].contribution

    def _skips(self, layer: int) -> dict[int, Tensor]:
        below = enumerate(self.transcoders[: layer + 1])
        skips = {source: transcoder.skip_to(layer - source) for source, transcoder in below}
        return {source: skip for source, skip in skips.items() if skip is not None}


def _rows(
    whole: TranscoderSet,
    points: MlpPoints,
    layer: Int[Tensor, " feat"],
    pos: Int[Tensor, " feat"],
    index: Int[Tensor, " feat"],
    activation: Float[Tensor, " feat"],
) -> TranscoderRows:
    """Rows of active features; of a set that is not where the model is, these alone are copied."""
    transcoders = whole.layers
    blocks = zip(transcoders, points.frozen.blocks, strict=True)
    if any(one.encoder.device != block.device for one, block in blocks):
        layers, indices = on_host(layer, index)
        ends = np.searchsorted(layers, np.arange(len(transcoders) + 1))
        places: list[ndarray] = []
        parts: list[Transcoder] = []
        for one, start, end in zip(transcoders, ends, ends[1:], strict=False):
            own, place = np.unique(indices[start:end], return_inverse=True)
            parts.append(one.only(own, points.recording.blocks[len(parts)].contribution))
            places.append(place)
        transcoders, index = tuple(parts), on_device(np.concatenate(places), activation.device)
    return TranscoderRows(whole, transcoders, points, pos, index, activation)


@dataclass(frozen=True)
class AffineSkip:
    """A skip matrix between two layers' residuals: scale[pos] · matrix, norms included.

    It is where it writes.
    """

    points: MlpPoints
    read: int  # layer
    written: int
    skip: Float[Tensor, "d_model_out d_model"]  # may be mapped from a file

    @cached_property
    def matrix(self) -> Float[Tensor, "d_model_out d_model"]:
        """The skip with gains and centring of the norms on both sides."""
        like = self.points.recording.blocks[self.written].contribution
        return self.points.between(self.read, self.written, beside(self.skip, like))

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
        return (moved(residual, scale.device) @ self.matrix.T).mul_(scale[:, None])

    def transpose(
        self, covector: Float[Tensor, "row pos d_model"], first: int
    ) -> Float[Tensor, "row pos d_model"]:
        scale = self.scale[first : first + covector.shape[1]]
        return self._at_read((covector @ self.matrix).mul_(scale[:, None]))

    def transpose_at(
        self, covector: Float[Tensor, "row d_model"], pos: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        return self._at_read((covector @ self.matrix).mul_(self.scale[pos, None]))

    def _at_read(self, covector: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        return moved(covector, self.points.frozen.blocks[self.read].device)
