"""Sources: every vector that enters the residual stream on one prompt, and its column in a row.

Per layer these are the active features' decoder rows, one error per position (what the dictionary
leaves of the MLP's contribution), and constants: biases, and MLP outputs at prefix positions.
Together with the embedding they sum to the model's own residual stream, so that a
row of direct effects sums to the target's own value.

Columns are in node order: tokens, positions, biases, then layer by layer features and errors.

Prefix positions come first, so they attend only to each other, and they have no features: their
residual stream is a fixed sum of components, one per token and one per layer's constants.  Later
positions read them through attention alone.  So they are pushed forward once, and the sweep stops
at their values, with c the covector on these:

    weight of a component = Σ_layer Σ_pos c[pos] · value(component)[layer, pos]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import (
    LocalReplacement,
    Written,
    error_squares,
    require_sound,
    written_at,
)
from circuits.features.active import ActiveFeatures, LinearPath
from circuits.features.hook_points import packing
from circuits.machine import gathered, is_accelerator, moved, on_device
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import attended, attention_constant
from circuits.recording.record import Recording
from graphs.core.brief import Brief
from graphs.core.nodes import NodeId, NodeKind, NodeTable


@dataclass(frozen=True, repr=False)
class Tiles(Brief):
    """Vectors with a position and a column each, packed so that one batched product reads them.

    How many tiles and sources there are up to a position is known on the host.
    """

    pos: Int[Tensor, " tile"]  # ascending, counted from the first swept position
    vectors: Float[Tensor, "tile width d_model"]  # zero where a tile is not full
    slot: Int[Tensor, " source"]  # place of each source in the flattened (tile, width), ascending
    column: Int[Tensor, " source"]
    is_constant: Float[Tensor, " slot"]  # 1 at those that share the bias column, else 0
    has_constants: bool
    bias_column: int
    tiles_before: Int[ndarray, " pos"]  # of each position, and of the end
    sources_before: Int[ndarray, " pos"]
    one_per_position: bool  # tile p is position p

    def at(self, pos: int) -> tuple[Int[Tensor, " source"], Float[Tensor, "source d_model"]]:
        """Columns and vectors of the sources at one position, without constants."""
        first, end = self.sources_before[pos : pos + 2].tolist()
        return self.column[first:end], self.vectors.flatten(0, 1)[self.slot[first:end]]

    def read(
        self, covector: Float[Tensor, "active pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · vector to the columns of all sources at the covectors' positions."""
        n_pos = covector.shape[1]
        n_tiles = int(self.tiles_before[n_pos])
        if n_tiles == 0 or len(covector) == 0:
            return
        if not self.one_per_position:
            covector = covector.index_select(1, self.pos[:n_tiles])
        weights = covector.new_empty(len(covector), n_tiles, self.vectors.shape[1])
        tiles = self.vectors[:n_tiles].mT
        torch.bmm(covector.transpose(0, 1), tiles, out=weights.transpose(0, 1))
        flat = weights.flatten(1)  # (row, tile and slot)
        up_to = rows[: len(covector)]
        n_sources = int(self.sources_before[n_pos])
        if n_sources:
            own = flat.index_select(1, self.slot[:n_sources])
            up_to.index_add_(1, self.column[:n_sources], own)
        if self.has_constants:
            up_to[:, self.bias_column].addmv_(flat, self.is_constant[: flat.shape[1]])


@dataclass(frozen=True, repr=False)
class LayerSources(Brief):
    """Sources that enter at one layer, where that lies."""

    tiles: Tiles  # features, errors and constants, added by the MLP
    mlp_constant: Float[Tensor, "pos d_model"]  # the constants among the tiles
    attention_constant: Float[Tensor, "pos d_model"]  # added by attention: biases
    has_attention_constant: bool  # whether any of it is nonzero
    linear: dict[int, LinearPath]  # by the layer that is read
    bias_column: int

    def read_attention_constant(
        self, covector: Float[Tensor, "active pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · constant to the layer's bias column."""
        if self.has_attention_constant:
            constant = self.attention_constant[: covector.shape[1]].flatten()
            rows[: len(covector), self.bias_column].addmv_(covector.flatten(1), constant)


@dataclass(frozen=True)
class PrefixValues:
    """Components of the prefix positions' residual, as values of every layer's attention."""

    column: Int[Tensor, " component"]
    columns: tuple[Int[Tensor, " component"], ...]  # the same where each layer lies
    # Per layer, (pos, kv head) flat; none if there are no such positions.
    values: tuple[Float[Tensor, "prefix_values component"], ...]

    def read(
        self,
        layer: int,
        covector: Float[Tensor, "active prefix kv_heads"],
        rows: Float[Tensor, "row column"],
    ) -> None:
        """Add covector · value to the columns of all components."""
        if self.values:
            weights = covector.flatten(1) @ self.values[layer]
            rows[: len(covector)].index_add_(1, self.columns[layer], weights)


@dataclass(frozen=True, repr=False)
class Sources(Brief):
    """All columns of a row."""

    first: int  # first swept position, after the prefix
    layers: tuple[LayerSources, ...]
    inputs: tuple[Float[Tensor, "pos d_model"], ...]  # token embeddings, position embeddings
    prefix: PrefixValues
    feature_column: Int[ndarray, " feat"]
    first_column: tuple[int, ...]  # of each layer's features, and the number of columns
    bias_column: int  # of layer 0; the final norm's and unembedding's follow the last layer's
    nodes: NodeTable  # of the columns
    squares: Float[Tensor, "layer 2"]  # `error_squares`

    @cached_property
    def _columns(self) -> dict[NodeId, int]:
        return {node: column for column, node in enumerate(self.nodes)}

    def columns(self, nodes: NodeTable) -> Int[ndarray, " node"]:
        """The columns of these nodes; -1: it has none."""
        return np.array([self._columns.get(node, -1) for node in nodes], dtype=np.int64)

    def columns_below(self, layer: int) -> int:
        """Number of columns that can affect a target reading at this layer."""
        return self.first_column[layer]

    def read_inputs(
        self, covector: Float[Tensor, "row pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · embedding to the columns of swept tokens and positions."""
        n_pos = covector.shape[1]
        for kind, vectors in enumerate(self.inputs):
            start = kind * len(vectors) + self.first
            swept = vectors[self.first : self.first + n_pos]
            rows[:, start : start + n_pos] = torch.einsum("tpd,pd->tp", covector, swept)


def build_sources(local: LocalReplacement, first: int | None = None) -> Sources:
    """Assign all sources of a prompt to columns; sweeps start at `first`, None: where they can.

    Raises DamagedWeights if any overflows.
    """
    frozen, recording, features = local.frozen, local.recording, local.features
    first = local.first_swept if first is None else first
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
    inputs = recording.inputs
    bias = len(inputs) * length
    starts = [bias + frozen.n_layers + 1]
    for start, end in pairwise(features.first):
        starts.append(starts[-1] + end - start + length - n_prefix)
    # Features are sorted by layer, with the errors of each layer after its features.
    feature_column = np.arange(len(features)) + starts[0]
    feature_column += features.on_host.layer * (length - n_prefix)
    constants = list(map(attention_constant, frozen.blocks, recording.blocks))
    layers: list[LayerSources] = []
    finite: dict[int, Tensor] = {}
    squares: list[Tensor] = []
    for layer, end in enumerate(starts[1:]):
        written = written_at(local, layer)
        finite[layer] = written.error.isfinite().all()
        squares.append(error_squares(local, layer, written.error)[None])
        columns = feature_column, end, bias
        layers.append(_layer(local, layer, written, first, columns, constants[layer]))
    require_sound(local, finite)
    return Sources(
        first=first,
        layers=tuple(layers),
        inputs=inputs,
        prefix=prefix_values(frozen, recording, first, constants, bias),
        feature_column=feature_column,
        first_column=tuple(starts),
        bias_column=bias,
        nodes=_nodes(frozen, recording, features),
        squares=gathered(squares, frozen.device),
    )


def prefix_values(
    frozen: FrozenModel,
    recording: Recording,
    first: int,
    attention_constants: list[Tensor],
    bias_column: int,
) -> PrefixValues:
    """Values of the positions before `first`; components are tokens, positions and biases."""
    length, n_layers = len(recording.prompt), frozen.n_layers
    device = recording.tokens.device
    inputs = recording.inputs
    own = torch.arange(first, device=device)
    columns = [own + length * kind for kind in range(len(inputs))]
    columns.append(bias_column + torch.arange(n_layers, device=device))
    column, copies = torch.cat(columns), dict[torch.device, Tensor]()
    for block in frozen.blocks:
        copies.setdefault(block.device, moved(column, block.device))
    at_layers = tuple(copies[block.device] for block in frozen.blocks)
    if not first:
        return PrefixValues(column, at_layers, ())
    residual = recording.tokens.new_zeros(len(inputs) * first + n_layers, first, frozen.d_model)
    for kind, vectors in enumerate(inputs):
        residual[kind * first + own, own] = vectors[:first]
    values: list[Tensor] = []
    for layer, (block, recorded) in enumerate(zip(frozen.blocks, recording.blocks, strict=True)):
        residual = moved(residual, block.device)
        value = residual @ block.value.T
        values.append(value.flatten(1).T.contiguous())
        residual = residual + attended(
            block, recorded, value / recorded.attention_denominator[:first, None]
        )
        constant = attention_constants[layer][:first] + recorded.contribution[:first]
        residual[len(inputs) * first + layer] += constant
    return PrefixValues(column, at_layers, tuple(values))


def _layer(
    local: LocalReplacement,
    layer: int,
    written: Written,
    first: int,
    columns: tuple[Int[ndarray, " feat"], int, int],
    attended: Float[Tensor, "pos d_model"],
) -> LayerSources:
    """The sources of a layer: features that write here, errors, constants.

    `columns` are those of all features, the end of this layer's, and the first bias.
    """
    recording, features = local.recording, local.features
    feature_column, end, bias_column = columns
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
    error, constant = written.error, written.constant
    # At prefix positions the MLP's whole output is a constant.
    constant[:n_prefix] = recording.blocks[layer].contribution[:n_prefix]
    biased = _nonzero(constant[first:]) + first
    pos, rows = np.arange(n_prefix, length), written.features
    return LayerSources(
        tiles=pack_tiles(
            np.concatenate([features.on_host.pos[rows], pos, biased]) - first,
            torch.cat(
                [written.vectors, error[n_prefix:], constant[on_device(biased, error.device)]]
            ),
            np.concatenate([feature_column[rows], np.arange(end - len(pos), end)]),
            bias_column + layer,
            length - first,
        ),
        mlp_constant=constant[first:],
        attention_constant=attended[first:],
        has_attention_constant=local.frozen.blocks[layer].biased,
        linear=written.linear,
        bias_column=bias_column + layer,
    )


def _nonzero(vectors: Float[Tensor, "pos d_model"]) -> Int[ndarray, " some"]:
    """Positions with a vector that is not zero; on an accelerator all, since it is not asked."""
    if is_accelerator(vectors.device):
        return np.arange(len(vectors))
    return vectors.any(1).nonzero()[:, 0].numpy()


def pack_tiles(
    pos: Int[ndarray, " vector"],
    vectors: Float[Tensor, "vector d_model"],
    column: Int[ndarray, " source"],
    bias_column: int,
    n_pos: int,
) -> Tiles:
    """Group vectors by position into tiles of equal width; those without a column are constants."""
    packed = packing(pos, n_pos)
    order = np.argsort(packed.slot)
    slot, own = packed.slot[order], order < len(column)
    sources = on_device(np.stack([slot[own], column[order[own]]]), vectors.device)
    is_constant = np.zeros(int(packed.n_tiles.sum()) * packed.width)
    is_constant[slot[~own]] = 1.0
    return Tiles(
        pos=on_device(packed.pos, vectors.device),
        vectors=packed.filled(vectors),
        slot=sources[0],
        column=sources[1],
        is_constant=on_device(is_constant, vectors.device, vectors.dtype),
        has_constants=len(pos) > len(column),
        bias_column=bias_column,
        tiles_before=_before(packed.n_tiles),
        sources_before=_before(np.bincount(pos[: len(column)], minlength=n_pos)),
        one_per_position=bool((packed.n_tiles == 1).all()),
    )


def _before(counts: Int[ndarray, " pos"]) -> Int[ndarray, " end"]:
    """Sums of the counts before each position, and of all."""
    return np.concatenate([[0], counts.cumsum()])


def _nodes(frozen: FrozenModel, recording: Recording, features: ActiveFeatures) -> NodeTable:
    """The nodes of the columns, in column order."""
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
    pos, none = np.arange(length), -1
    ids = np.array(recording.prompt.ids)
    parts: list[tuple] = [(NodeKind.TOKEN, none, pos, ids)]
    if recording.positions is not None:
        parts.append((NodeKind.POSITION, none, pos, none))
    parts.append((NodeKind.BIAS, np.arange(frozen.n_layers + 1), none, none))
    places = features.on_host
    activation, value = features.numbers[:2]
    for layer in range(frozen.n_layers):
        here = features.read_at(layer)
        columns = (places.pos, places.index, activation, value)
        parts.append((NodeKind.FEATURE, layer, *(column[here] for column in columns)))
        parts.append((NodeKind.ERROR, layer, np.arange(n_prefix, length), none))
    return node_table(parts)


def node_table(parts: list[tuple]) -> NodeTable:
    """A table from groups (kind, layer, pos, index[, activation, value]) of arrays and scalars."""
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for kind, *fields in parts:
        filled = [np.asarray(kind), *fields, *[np.nan] * (5 - len(fields))]
        size = max(np.size(field) for field in fields if isinstance(field, np.ndarray))
        for column, field in zip(columns, filled, strict=True):
            column.append(np.broadcast_to(field, size))
    kinds, layer, pos, index, activation, value = (np.concatenate(c) for c in columns)
    return NodeTable(
        kind=kinds.astype(np.int8),
        layer=layer.astype(np.int32),
        pos=pos.astype(np.int32),
        index=index.astype(np.int64),
        activation=activation.astype(np.float64),
        value=value.astype(np.float64),
    )
