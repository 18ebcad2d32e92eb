"""Sources as long as they have crossed no attention: each at its own position.

A token, feature or error is added at one position, and until an attention carries it elsewhere it
stays there: layers add what else the source writes, and what linear paths of the MLPs make of it.
Biases enter at every position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sources import LayerSources, Sources
from circuits.machine import moved, on_device
from circuits.model.frozen import Covectors, FrozenModel
from circuits.recording.attention import Attention, output_bias, value_bias
from graphs.core.brief import Brief


@dataclass(frozen=True, repr=False)
class Slots(Brief):
    """Chosen columns, each in a slot at its position; a bias has a slot at every position."""

    slot: Int[ndarray, " chosen"]
    pos: Int[ndarray, " chosen"]  # -1: every position
    n_slots: int
    of_column: Int[Tensor, " column"]  # the slot of each column of the sources; -1: not chosen

    @staticmethod
    def of(sources: Sources, chosen: Int[ndarray, " chosen"]) -> Slots:
        """Slots of these columns."""
        pos = sources.nodes.pos[chosen].astype(np.int64)
        order = np.argsort(pos, kind="stable")
        slot = np.empty_like(pos)
        slot[order] = np.arange(len(pos)) - np.searchsorted(pos[order], pos[order])
        bias = pos < 0
        slot[bias] += slot[~bias].max(initial=-1) + 1
        lookup = np.full(len(sources.nodes), -1)
        lookup[chosen] = slot
        device = sources.inputs[0].device
        return Slots(slot, pos, int(slot.max(initial=-1)) + 1, on_device(lookup, device))

    def of_bias(self, column: int) -> int | None:
        """The slot of a bias; None if it is not chosen."""
        slot = int(self.of_column[column])
        return None if slot < 0 else slot


class Stage(NamedTuple):
    """The sources around one attention, where its layer lies."""

    before: Float[Tensor, "slot pos d_model"]  # on entering it
    behind: Float[Tensor, "slot pos d_model"]  # behind it: the same, and the bias of its output


def stages(
    local: LocalReplacement, sources: Sources, slots: Slots, attention: Attention | None = None
) -> Iterator[Stage]:
    """Every layer from below, and once more behind the last.  Sources begin at position 0.

    With attention, all that the sources are, wherever heads have carried it.
    """
    frozen = local.frozen
    residual = sources.inputs[0].new_zeros(slots.n_slots, len(sources.inputs[0]), frozen.d_model)
    _enter(residual, slots, *_inputs(sources))
    read: list[Tensor] = []  # what each layer's MLP reads
    for layer, entering in enumerate(sources.layers):
        block, recorded = frozen.blocks[layer], local.recording.blocks[layer]
        before, bias = moved(residual, block.device), slots.of_bias(entering.bias_column)
        behind = before.clone()
        if attention is not None:
            behind += attention.push_forward(layer, before)
        if bias is not None:
            whole = attention is not None
            constant = entering.attention_constant if whole else output_bias(block, recorded)
            behind[bias] += constant
        yield Stage(before, behind)
        read.append(before if frozen.parallel else behind)
        residual = behind + _linear(entering, read)
        _enter(residual, slots, *_written(entering))
        if bias is not None:
            residual[bias] += entering.mlp_constant
    residual = moved(residual, frozen.device)
    yield Stage(residual, residual)


def reads_before(frozen: FrozenModel, targets: Covectors) -> Bool[ndarray, " row"]:
    """Which targets read what enters their layer: before its attention, or beside it."""
    if frozen.parallel:
        return targets.layer < frozen.n_layers
    return targets.level < 2 * targets.layer


def onward(
    local: LocalReplacement, sources: Sources, layer: int, behind: Float[Tensor, "1 pos d_model"]
) -> Iterator[Stage]:
    """The same for what one head of a layer has added, from there on, crossing no other.

    The first stage is of this layer, where nothing of it is before.
    """
    frozen, nothing = local.frozen, torch.zeros_like(behind)
    read = [nothing] * layer
    residual = nothing
    for number, entering in enumerate(sources.layers[layer:], layer):
        residual, behind = (moved(one, frozen.device_at(number)) for one in (residual, behind))
        yield Stage(residual, behind)
        read.append(residual if frozen.parallel else behind)
        residual = behind + _linear(entering, read)
        behind = residual
    residual = moved(residual, frozen.device)
    yield Stage(residual, residual)


def _linear(entering: LayerSources, read: list[Tensor]) -> Tensor | float:
    """What linear paths of the MLPs write, given what each layer's MLP reads."""
    return sum((path.forward(read[source], 0) for source, path in entering.linear.items()), 0.0)


def values_of(
    local: LocalReplacement,
    sources: Sources,
    slots: Slots | None,
    layer: int,
    residual: Float[Tensor, "slot pos d_model"],
) -> Float[Tensor, "kv_head pos d_head slot"]:
    """Values of sources at a layer's attention; what its norm divides by is in the patterns.

    Without slots, of what is no source: the layer's constants are not among it.
    """
    block, recorded = local.frozen.blocks[layer], local.recording.blocks[layer]
    values = residual @ block.value.T
    bias = None if slots is None else slots.of_bias(sources.layers[layer].bias_column)
    if bias is not None:
        values[bias] += value_bias(block, recorded)
    return values.unflatten(2, (block.n_kv_heads, -1)).permute(2, 1, 3, 0).contiguous()


def _inputs(sources: Sources) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, positions and vectors of what enters the first layer."""
    length, device = len(sources.inputs[0]), sources.inputs[0].device
    column = torch.arange(len(sources.inputs) * length, device=device)
    return column, column % length, torch.cat(sources.inputs)


def _written(entering: LayerSources) -> tuple[Tensor, Tensor, Tensor]:
    """Columns, positions and vectors of features and errors that a layer's MLP writes."""
    tiles = entering.tiles
    vectors = tiles.vectors.flatten(0, 1)[tiles.slot]
    return tiles.column, tiles.pos[tiles.slot // tiles.vectors.shape[1]], vectors


def _enter(
    residual: Float[Tensor, "slot pos d_model"],
    slots: Slots,
    column: Int[Tensor, " source"],
    pos: Int[Tensor, " source"],
    vectors: Float[Tensor, "source d_model"],
) -> None:
    """Add the vectors of chosen columns, in place."""
    slot = moved(slots.of_column[moved(column, slots.of_column.device)], residual.device)
    chosen = slot >= 0
    residual.index_put_((slot[chosen], pos[chosen]), vectors[chosen], accumulate=True)
