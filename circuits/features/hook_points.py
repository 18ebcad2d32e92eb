"""Where a dictionary reads the residual stream and where it writes to it, as linear maps.

The points are those of `circuits.features.points`.

Vectors at given positions are packed in tiles, so that one batched product reads all of them: a
tile is as many slots at one position, a position with more vectors has several, and slots that no
vector takes are zero.  Positions are known on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.points import ReadPoint, WritePoint
from circuits.machine import moved, on_device
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording

MOST_PADDING = 3  # largest number of slots per vector
TILE_WIDTH = 64  # largest tile where positions have unequal numbers of vectors


@dataclass(frozen=True)
class MlpPoints:
    """The read and write maps of every layer's MLP on one prompt.

    Vectors are where their layer lies; positions may be on any device.
    """

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
        denominator = _at(self.recording.blocks[layer].mlp_denominator, pos)
        if self.read == ReadPoint.MLP_INPUT:
            return norm.linear(residual, denominator)
        return norm.centre(residual) / denominator[:, None]

    def reads_norm(self, layer: int) -> bool:
        """Whether the dictionary reads the residual through a norm."""
        norm = self.frozen.blocks[layer].mlp_norm
        return self.read != ReadPoint.RESIDUAL and norm.eps is not None

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
        denominator = _at(self.recording.blocks[layer].mlp_denominator, pos)
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
        return norm.linear(vector, _at(self.recording.blocks[layer].post_mlp_denominator, pos))

    def pull_back_written(
        self, layer: int, pos: Int[Tensor, " row"], covector: Float[Tensor, "*target row d_model"]
    ) -> Float[Tensor, "*target row d_model"]:
        """Transpose of `written`."""
        norm = self._write_norm(layer)
        if norm is None:
            return covector
        denominator = _at(self.recording.blocks[layer].post_mlp_denominator, pos)
        return norm.transpose(covector, denominator)

    def between(
        self, read: int, written: int, matrix: Float[Tensor, "d_model d_model"]
    ) -> Float[Tensor, "d_model d_model"]:
        """A matrix from read to written vectors, as a map between residuals; where it writes.

        It includes gains and centring of the norms; their denominators are in `scale`.
        """
        norm = self.frozen.blocks[read].mlp_norm.on(matrix.device)
        if self.read == ReadPoint.MLP_INPUT:
            matrix = norm.centre(matrix * norm.gain)
        elif self.read == ReadPoint.NORMALISED:
            matrix = norm.centre(matrix)
        post = self._write_norm(written)
        return matrix if post is None else post.centre(matrix.T).T * post.gain[:, None]

    def scale(self, read: int, written: int) -> Float[Tensor, " pos"]:
        """The factor of such a matrix at each position."""
        blocks = self.recording.blocks
        scale = torch.ones_like(blocks[written].mlp_denominator)
        if self.read != ReadPoint.RESIDUAL:
            scale = scale / moved(blocks[read].mlp_denominator, scale.device)
        if self._write_norm(written) is not None:
            scale = scale / blocks[written].post_mlp_denominator
        return scale

    def _write_norm(self, layer: int):
        if self.write == WritePoint.CONTRIBUTION:
            return None
        return self.frozen.blocks[layer].post_mlp_norm


def _at(column: Float[Tensor, " pos"], pos: Int[Tensor, " row"]) -> Float[Tensor, " row"]:
    """Entries at these positions."""
    return column[moved(pos, column.device)]


class Packing(NamedTuple):
    """Where vectors are in tiles."""

    n_tiles: Int[ndarray, " pos"]  # of each position
    width: int  # slots of a tile
    slot: Int[ndarray, " vector"]  # place of each vector in the flattened (tile, width)

    @property
    def pos(self) -> Int[ndarray, " tile"]:
        """The position of each tile, ascending."""
        return np.repeat(np.arange(len(self.n_tiles)), self.n_tiles)

    def filled(
        self, vectors: Float[Tensor, "vector d_model"]
    ) -> Float[Tensor, "tile slot d_model"]:
        """The tiles with these vectors in them."""
        tiles = vectors.new_zeros(int(self.n_tiles.sum()) * self.width, vectors.shape[1])
        tiles.index_copy_(0, on_device(self.slot, vectors.device), vectors)
        return tiles.view(-1, self.width, vectors.shape[1])


def packing(pos: Int[ndarray, " vector"], n_pos: int) -> Packing:
    """Tiles of equal width for vectors at these positions."""
    order = np.argsort(pos, kind="stable")
    counts = np.bincount(pos, minlength=n_pos)
    width = tile_width(counts)
    n_tiles = -(-counts // width)
    at = pos[order]
    rank = np.arange(len(pos)) - (counts.cumsum() - counts)[at]
    slot = np.empty(len(pos), dtype=np.int64)
    slot[order] = (n_tiles.cumsum() - n_tiles)[at] * width + rank
    return Packing(n_tiles, width, slot)


def slots(counts: Int[ndarray, " pos"]) -> int:
    """Number of slots of tiles with these numbers of vectors by position."""
    return _slots(counts, tile_width(counts))


def tile_width(counts: Int[ndarray, " pos"]) -> int:
    """The width of one tile per position if vectors are spread evenly, else limited by padding.

    On a long prompt most positions of a layer have an error and no feature.
    """
    widest = max(1, int(counts.max(initial=1)))
    most = MOST_PADDING * int(counts.sum())
    if widest * len(counts) <= most:
        return widest
    width = TILE_WIDTH
    while width > 1 and _slots(counts, width) > most:
        width //= 2
    return width


def _slots(counts: Int[ndarray, " pos"], width: int) -> int:
    return int((-(-counts // width)).sum()) * width


def read_at(
    residual: Float[Tensor, "batch pos d_model"],
    pos: Int[ndarray, " row"],
    vectors: Float[Tensor, "row d_model"],
) -> Float[Tensor, "batch row"]:
    """Products of each vector with the residuals at its position."""
    places, place = np.unique(pos, return_inverse=True)
    packed = packing(place, len(places))
    there = residual.index_select(1, on_device(places[packed.pos], residual.device))
    read = torch.bmm(there.transpose(0, 1), packed.filled(vectors).mT)  # (tile, batch, slot)
    slot = on_device(packed.slot, vectors.device)
    return read.transpose(0, 1).reshape(len(residual), -1).index_select(1, slot)
