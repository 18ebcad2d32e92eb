"""Heads as sources: rows that cross no attention, and end at what heads write instead.

    value = Σ_source covector · vector
          + Σ_layer Σ_head Σ_pos (covector[layer, pos] · W_O[head]) · mixed[layer, head, pos]

The first sum is over what embeddings, biases and MLPs write at positions where the target has a
covector, the second over what each head has mixed there, wherever it has taken it from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.sources import LayerSources
from circuits.attribution.sweep import (
    Crossing,
    ForwardPrefix,
    InPlace,
    sweep_block,
    sweep_in_place,
)
from circuits.interventions.experiment import Experiment
from circuits.machine import in_float64, moved, on_device
from circuits.model.frozen import Covectors
from circuits.recording.attention import head_mixed, head_values, output_bias
from circuits.recording.record import entering_attention
from graphs.core.brief import Brief

NUMBERS_AT_ONCE = 2**24  # of covectors on what heads mix


@dataclass(frozen=True, repr=False)
class LocalRows(Brief):
    """Rows of targets that are sorted by level from the top."""

    weights: Float[Tensor, "row column"]  # of `Sources`
    heads: Float[Tensor, "row layer head *pos"]
    # Per layer, where it lies, covectors on what its heads mix; of rows that are at or above it.
    toward: dict[int, Float[Tensor, "some head *pos d_head"]]
    own: Int[Tensor, " row"] | None = None  # position of each row; None: there is an axis of them

    def heads_by_position(self, n_pos: int) -> Float[Tensor, "row layer head pos"]:
        """What rows take of each head at each position."""
        if self.own is None:
            return self.heads
        spread = self.heads.new_zeros(*self.heads.shape, n_pos)
        spread[torch.arange(len(self.own), device=self.own.device), :, :, self.own] = self.heads
        return spread


class ReadHeads(NamedTuple):
    """What rows read of each head at each query, all of them together.

    A row adds its covector with the sign of its part, so that what is read of a head along the sum
    is the sum of the sizes of the parts.
    """

    share: Float[Tensor, "layer head pos"]
    toward: Float[Tensor, "layer head pos d_head"]  # covectors on what heads mix


class HeadSources:
    """The sources of one prompt, with what heads write among them."""

    def __init__(self, experiment: Experiment) -> None:
        local = experiment.local
        self.frozen, self.recording = local.frozen, local.recording
        self.attention = experiment.attention
        parts = zip(self.frozen.blocks, self.recording.blocks, strict=True)
        self.sources = replace(
            experiment.sources,
            layers=tuple(
                _without_values(entering, output_bias(block, recorded))
                for entering, (block, recorded) in zip(
                    experiment.sources.layers, parts, strict=True
                )
            ),
        )
        # What each head mixes, and the values at its keys.
        self.values = tuple(map(self._values, range(self.frozen.n_layers)))
        self.mixed = tuple(map(head_mixed, self.recording.blocks, self.values))
        self.n_heads = max(block.n_heads for block in self.frozen.blocks)
        self.length = len(self.recording.prompt)

    def rows_at_once(self, *, in_place: bool) -> int:
        """Rows whose covectors on what heads mix are held together."""
        numbers = sum(mixed.numel() for mixed in self.mixed)
        return max(1, NUMBERS_AT_ONCE // (numbers // self.length if in_place else numbers))

    def rows_in_place(self, targets: Covectors) -> LocalRows:
        """The rows of targets that read one position each, which is all that they live at."""
        reading = _ReadingInPlace(self, targets)
        heads, _ = sweep_in_place(self.frozen, self.recording, self.sources, targets, reading)
        return LocalRows(reading.weights, heads, reading.toward, reading.pos)

    def rows(self, targets: Covectors, spread: Float[Tensor, "row pos d_model"]) -> LocalRows:
        """The rows of targets with covectors at many positions (`sweep_block`)."""
        reading = _Reading(self, len(targets.pos))
        nothing = ForwardPrefix()
        weights = sweep_block(self.frozen, None, self.sources, nothing, targets, reading, spread)
        return LocalRows(weights, reading.heads, reading.toward)

    def read(self, rows: LocalRows, shares: Float[Tensor, " row"], read: ReadHeads) -> None:
        """Add what rows read of heads; the sizes of a row's parts times its `shares` are shares."""
        for layer, there in rows.toward.items():
            toward = moved(there, read.toward.device)
            count, n_heads = toward.shape[:2]
            if rows.own is None:
                n_pos = toward.shape[2]
                part = rows.heads[:count, layer, :n_heads, :n_pos]
                weight = part.sign() * shares[:count, None, None]
                read.share[layer, :n_heads, :n_pos] += (part * weight).sum(0)
                total = torch.einsum("rhp,rhpd->hpd", weight, toward)
                read.toward[layer, :n_heads, :n_pos] += total
            else:
                part, own = rows.heads[:count, layer, :n_heads], rows.own[:count]
                weight = part.sign() * shares[:count, None]
                share, along = read.share[layer, :n_heads], read.toward[layer, :n_heads]
                share.T.index_add_(0, own, part * weight)
                along.transpose(0, 1).index_add_(0, own, weight[:, :, None] * toward)

    def nothing_read(self) -> ReadHeads:
        """Of no rows."""
        shape = self.frozen.n_layers, self.n_heads, self.length
        like = self.mixed[0]
        return ReadHeads(like.new_zeros(shape), like.new_zeros(*shape, like.shape[2]))

    def values_toward(
        self, layer: int, head: int, query: int, toward: Float[Tensor, " d_head"]
    ) -> Float[Tensor, " key"]:
        """What a head carries from every key to a query, along a covector on what it mixes."""
        kv_head, member = divmod(head, self._group(layer))
        pattern = self.attention.mixing_of(layer, self.length)[kv_head, :, query, member]
        return pattern * (self.values[layer][kv_head] @ moved(toward, pattern.device))

    def main_key(self, layer: int, head: int, query: int, toward: Float[Tensor, " d_head"]) -> int:
        """The key that most is carried from, of those behind the prefix if there are any."""
        flow = in_float64(self.values_toward(layer, head, query, toward)).abs()[: query + 1]
        n_prefix = self.recording.prompt.n_prefix
        first = n_prefix if n_prefix < len(flow) else 0
        return first + int(flow[first:].argmax())

    def _values(self, layer: int) -> Float[Tensor, "kv_head key d_head"]:
        block, recorded = self.frozen.blocks[layer], self.recording.blocks[layer]
        entering = entering_attention(self.frozen, self.recording, layer)
        return head_values(block, recorded, entering)

    def _group(self, layer: int) -> int:
        block = self.frozen.blocks[layer]
        return block.n_heads // block.n_kv_heads


class _Reading(Crossing):
    """What a block of rows reads of heads."""

    def __init__(self, sources: HeadSources, n_rows: int) -> None:
        self.sources = sources
        like, shape = sources.mixed[0], (sources.frozen.n_layers, sources.n_heads)
        self.heads = like.new_zeros(n_rows, *shape, sources.length)
        self.toward: dict[int, Tensor] = {}

    def above(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """As `Crossing`."""
        toward = self.sources.attention.above_heads(layer, covector)
        toward = toward.permute(1, 0, 3, 2, 4).flatten(1, 2)
        self.toward[layer] = toward
        n_heads, n_pos = toward.shape[1:3]
        part = (toward * self.sources.mixed[layer][:, :n_pos]).sum(3)
        self.heads[: len(part), layer, :n_heads, :n_pos] = moved(part, self.heads.device)


class _ReadingInPlace(InPlace):
    """What a block of rows, each at one position, reads."""

    def __init__(self, sources: HeadSources, targets: Covectors) -> None:
        self.sources, self.own = sources, targets.pos
        self.pos = on_device(targets.pos, targets.covector.device)  # as are weights
        n_columns = len(sources.sources.nodes)
        self.weights = targets.covector.new_zeros(len(targets.pos), n_columns)
        self.toward: dict[int, Tensor] = {}

    def written(self, layer: int, covector: Float[Tensor, "some d_model"]) -> None:
        """As `InPlace`."""
        entering = self.sources.sources.layers[layer]
        own = self.own[: len(covector)]
        for pos in np.unique(own).tolist():
            column, vectors = entering.tiles.at(pos)
            here = np.flatnonzero(own == pos)
            read = covector[on_device(here, covector.device)] @ vectors.T
            device = self.weights.device
            row, column = on_device(here, device)[:, None], moved(column, device)
            self.weights[row, column] += moved(read, device)
        self._add_constant(entering.bias_column, entering.mlp_constant, covector)

    def attended(self, layer: int, covector: Float[Tensor, "some d_model"]) -> None:
        """As `InPlace`."""
        entering = self.sources.sources.layers[layer]
        self._add_constant(entering.bias_column, entering.attention_constant, covector)
        toward = self.sources.attention.above_heads(layer, covector[:, None])
        self.toward[layer] = toward[:, :, 0].transpose(0, 1).flatten(1, 2)

    def entered(self, covector: Float[Tensor, "row d_model"]) -> None:
        """As `InPlace`."""
        rows = torch.arange(len(covector), device=covector.device)
        for kind, vectors in enumerate(self.sources.sources.inputs):
            product = (covector * vectors[self.pos]).sum(1)
            self.weights[rows, kind * len(vectors) + self.pos] = product

    def _add_constant(
        self, column: int, constant: Float[Tensor, "pos d_model"], covector: Tensor
    ) -> None:
        own = constant[moved(self.pos[: len(covector)], constant.device)]
        read = (covector * own).sum(1)
        self.weights[: len(covector), column] += moved(read, self.weights.device)


def _without_values(entering: LayerSources, bias: Float[Tensor, "pos d_model"]) -> LayerSources:
    """Sources of a layer without the biases of values, which are in what heads write."""
    has_bias = entering.has_attention_constant
    return replace(entering, attention_constant=bias, has_attention_constant=has_bias)


def shares_of(rows: LocalRows, arrived: Float[ndarray, " row"]) -> Float[Tensor, " row"]:
    """By what the sizes of a row's parts are multiplied to be shares of what has arrived at it."""
    sizes = rows.weights.abs().sum(1) + rows.heads.abs().flatten(1).sum(1)
    own = on_device(arrived, sizes.device, sizes.dtype)
    return torch.where(sizes > 0, own / sizes.clamp_min(torch.finfo(sizes.dtype).tiny), 0.0)
