"""A transcoder: the dictionary of one layer, which may write across layers and have an affine skip.

Layer l's dictionary reads its MLP's input and writes to layers l, l+1, …, l+n_written-1:

    activation_l = nonlinearity(encoder_l · input_l · read_scale_l + encoder_bias_l)
    output_m     = decoder_bias_m + skip_m · input_m
                 + Σ_l (activation_l + added_{l→m}) · write_scale_{l→m} · decoder_{l→m}

A per-layer transcoder is the case n_written = 1.  Matrices may be mapped from files, in any dtype:
encoders are converted in blocks of rows, of decoders only rows of active features are read.

Nonlinearities are ReLU, JumpReLU, and those that keep the largest of a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.machine import beside, moved, on_device
from graphs.core.brief import Brief

CONVERTED_VALUES = 2**26  # of an encoder, per block


@dataclass(frozen=True, repr=False)
class Transcoder(Brief):
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
        """Number of features."""
        return len(self.encoder_bias)

    @property
    def n_written(self) -> int:
        """Number of layers written to."""
        return len(self.decoders)

    def skip_to(self, offset: int) -> Float[Tensor, "d_model_out d_model"] | None:
        """The matrix from this layer's input to the output of the layer `offset` above."""
        if offset == 0:
            return self.skip
        return self.higher_skips[offset - 1] if offset <= len(self.higher_skips) else None

    def pre_activations(
        self,
        inputs: Float[Tensor, "*batch d_model"],
        arriving: Iterator[Tensor] | None = None,
    ) -> Float[Tensor, "*batch d_dict"]:
        """Values before the nonlinearity, in the dtype and on the device of the inputs.

        `arriving`: the parts of the encoder there, if they are sent by others.
        """
        scaled = inputs if self.read_scale == 1 else inputs * self.read_scale
        return pre_activations(scaled, self.encoder, self.encoder_bias, arriving)

    def encoder_rows(
        self, index: Int[Tensor, " row"], like: Tensor
    ) -> Float[Tensor, "row d_model"]:
        """Encoder rows, as covectors on the input."""
        rows = beside(self.encoder.index_select(0, moved(index, self.encoder.device)), like)
        return rows if self.read_scale == 1 else rows * self.read_scale

    def decoder_rows(
        self,
        offset: int,
        index: Int[Tensor, " row"],
        activation: Float[Tensor, " row"],
    ) -> Float[Tensor, "row d_model"]:
        """What each feature with this activation writes to the layer `offset` above."""
        place = moved(index, self.encoder.device)
        if self.added is not None:
            activation = activation + beside(self.added[offset][place], activation)
        if self.write_scales is not None:
            activation = activation * beside(self.write_scales[offset][place], activation)
        return activation[:, None] * beside(self.decoders[offset][place], activation)

    def written(
        self, offset: int, activation: Float[Tensor, "*batch d_dict"]
    ) -> Float[Tensor, "*batch d_model"]:
        """What all features together write to the layer `offset` above."""
        if self.added is not None:
            activation = activation + beside(self.added[offset], activation) * (activation > 0)
        if self.write_scales is not None:
            activation = activation * beside(self.write_scales[offset], activation)
        decoder = self.decoders[offset]
        total = activation.new_zeros(*activation.shape[:-1], decoder.shape[1])
        for own, rows in zip(
            activation.split(rows_at_once(decoder), -1), in_parts(decoder), strict=True
        ):
            total = total + own @ beside(rows, activation)
        return total

    def only(self, index: Int[ndarray, " row"], like: Tensor) -> Transcoder:
        """These features alone, as what they read and write, on the device of a tensor."""
        place = on_device(index, self.encoder.device)

        def rows(matrices: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(beside(one.index_select(0, place), like) for one in matrices)

        encoder, bias = rows((self.encoder, self.encoder_bias))
        return replace(
            self,
            encoder=encoder,
            encoder_bias=bias,
            decoders=rows(self.decoders),
            decoder_bias=beside(self.decoder_bias, like),
            skip=None if self.skip is None else beside(self.skip, like),
            higher_skips=tuple(beside(one, like) for one in self.higher_skips),
            write_scales=None if self.write_scales is None else rows(self.write_scales),
            added=None if self.added is None else rows(self.added),
        )


def empty_transcoder(d_model: int, device: torch.device | None = None) -> Transcoder:
    """A transcoder without features, for layers that a set leaves out: all output is error."""
    rows, bias = torch.zeros(0, d_model, device=device), torch.zeros(d_model, device=device)
    return Transcoder(rows, rows[:, 0], (rows,), bias, ReLU())


def with_gaps(by_layer: Mapping[int, Transcoder]) -> tuple[Transcoder, ...]:
    """All layers up to the last of these, without features where there is none."""
    last = max(by_layer)
    d_model = by_layer[last].encoder.shape[1]
    return tuple(by_layer.get(layer) or empty_transcoder(d_model) for layer in range(last + 1))


def pre_activations(
    inputs: Float[Tensor, "*batch d_in"],
    encoder: Float[Tensor, "d_dict d_in"],
    bias: Float[Tensor, " d_dict"],
    arriving: Iterator[Tensor] | None = None,
) -> Float[Tensor, "*batch d_dict"]:
    """encoder · input + bias in the inputs' dtype, one block of encoder rows at a time.

    `arriving`: these blocks as the inputs are, if they are sent by others.
    """
    if arriving is None:
        arriving = (beside(block, inputs) for block in in_parts(encoder))
    parts = [
        torch.nn.functional.linear(inputs, next(arriving), beside(biases, inputs))
        for biases in bias.split(rows_at_once(encoder))
    ]
    return torch.cat(parts, -1)


def in_parts(matrix: Float[Tensor, "d_dict d_model"]) -> tuple[Tensor, ...]:
    """Blocks of rows that are converted together, and sent to a device together."""
    return matrix.split(rows_at_once(matrix))


def rows_at_once(matrix: Float[Tensor, "d_dict d_model"]) -> int:
    """How many rows of a matrix such a block has."""
    return max(1, CONVERTED_VALUES // max(1, matrix.shape[1]))


@dataclass(frozen=True)
class ReLU:
    """max(pre, 0)."""

    def limits(self, like: Float[Tensor, " d_dict"]) -> Float[Tensor, " d_dict"]:
        """Pre-activations at or below which features are off."""
        return torch.zeros_like(like)

    def of(self, index: Int[Tensor, " row"]) -> ReLU:
        """The nonlinearity of these features, which do not depend on others."""
        del index
        return self

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return pre.relu()


@dataclass(frozen=True)
class JumpReLU:
    """pre where pre > threshold, strictly, else 0; published thresholds are positive."""

    threshold: Float[Tensor, " d_dict"]

    def limits(self, like: Float[Tensor, " d_dict"]) -> Float[Tensor, " d_dict"]:
        """Pre-activations at or below which features are off."""
        return beside(self.threshold, like)

    def of(self, index: Int[Tensor, " row"]) -> JumpReLU:
        """The nonlinearity of these features, which do not depend on others."""
        return JumpReLU(self.threshold[moved(index, self.threshold.device)])

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        return torch.where(pre > beside(self.threshold, pre), pre.relu(), 0)


class Competing:
    """A nonlinearity that keeps the largest: where a feature is off depends on the others."""

    def limits(self, like: Float[Tensor, " d_dict"]) -> Float[Tensor, " d_dict"]:
        """Infinite: the limits are those of the prompt."""
        return torch.full_like(like, torch.inf)


@dataclass(frozen=True)
class TopK(Competing):
    """The k largest of each position; `signed` keeps negative ones (circuit-tracer), else ReLU.

    With a weight, size means activation times weight.
    """

    k: int
    signed: bool = False
    weight: Float[Tensor, " d_dict"] | None = None

    def limits(self, like: Float[Tensor, " d_dict"]) -> Float[Tensor, " d_dict"]:
        """None where negative values are kept too."""
        return torch.full_like(like, torch.nan if self.signed else torch.inf)

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre if self.signed else pre.relu()
        index = ranking_size(kept, self.weight).topk(min(self.k, kept.shape[-1]), dim=-1).indices
        return torch.zeros_like(kept).scatter(-1, index, kept.gather(-1, index))


@dataclass(frozen=True)
class BatchTopK(Competing):
    """The k largest per position on average over all positions, after a ReLU."""

    k: int
    weight: Float[Tensor, " d_dict"] | None = None

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre.relu()
        size = ranking_size(kept, self.weight).flatten()
        index = size.topk(min(self.k * len(pre), len(size))).indices
        flat = torch.zeros_like(kept).flatten()
        return flat.scatter(0, index, kept.flatten()[index]).view_as(kept)


@dataclass(frozen=True)
class GroupMax(Competing):
    """The largest of each of k groups of neighbouring features, after a ReLU (sparsify)."""

    k: int

    def __call__(self, pre: Float[Tensor, "pos d_dict"]) -> Float[Tensor, "pos d_dict"]:
        kept = pre.relu()
        groups = kept.view(len(kept), self.k, -1)
        values, index = groups.max(-1, keepdim=True)
        return torch.zeros_like(groups).scatter(-1, index, values).view_as(kept)


@dataclass(frozen=True)
class JointTopK:
    """The k features of a token, over all layers, of largest activation times decoder norm."""

    k: int
    norms: tuple[Float[Tensor, " d_dict"], ...]

    def candidates(
        self, layer: int, activation: Float[Tensor, "pos d_dict"]
    ) -> Float[Tensor, "pos d_dict"]:
        """Activations of one layer, 0 but for the features that may be among the k."""
        sizes = activation * beside(self.norms[layer], activation)
        index = sizes.topk(min(self.k, sizes.shape[1]), dim=1).indices
        return torch.zeros_like(activation).scatter(1, index, activation.gather(1, index))

    def kept(
        self,
        layer: Int[Tensor, " feat"],
        pos: Int[Tensor, " feat"],
        index: Int[Tensor, " feat"],
        activation: Float[Tensor, " feat"],
        n_pos: int,
    ) -> Int[Tensor, " kept"]:
        """The candidates that are among the k of their position, in order."""
        widths = np.array([len(norm) for norm in self.norms])
        starts = on_device(widths.cumsum() - widths, index.device)
        norms = torch.cat([beside(norm, activation) for norm in self.norms])
        size = activation * norms[starts[layer] + index]
        order = torch.argsort(size, descending=True, stable=True)
        order = order[torch.argsort(pos[order], stable=True)]
        counts = torch.zeros(n_pos, dtype=pos.dtype, device=pos.device)
        counts.index_add_(0, pos, torch.ones_like(pos))
        rank = torch.arange(len(order), device=pos.device) - (counts.cumsum(0) - counts)[pos[order]]
        return order[rank < self.k].sort().values


def ranking_size(
    kept: Float[Tensor, "pos d_dict"], weight: Float[Tensor, " d_dict"] | None
) -> Float[Tensor, "pos d_dict"]:
    """The size by which features are ranked."""
    return kept if weight is None else kept * beside(weight, kept)


Nonlinearity = ReLU | JumpReLU | TopK | BatchTopK | GroupMax
