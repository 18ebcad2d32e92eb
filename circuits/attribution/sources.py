"""Sources: every vector that enters the residual stream on one prompt, and its column in a row.

Per layer these are the active features' decoder rows, one error per position (what the dictionary
leaves of the MLP's contribution), and constants: biases, and MLP outputs at context-only
positions.  Together with the embedding they sum to the model's own residual stream, so that a
row of direct effects sums to the target's own value.

Columns are in node order: tokens, positions, biases, then layer by layer features and errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.prefix_positions import Context, push_forward
from circuits.features.active import ActiveFeatures, LinearPath
from circuits.features.decomposition import written_at
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import attention_constant
from circuits.recording.record import Recording
from graphs.core.nodes import NodeKind, NodeTable

MOST_PADDING = 3  # slots per source at most
TILE_WIDTH = 64  # sources of one position read off together at most, where positions are uneven


@dataclass(frozen=True)
class Tiles:
    """Vectors with a position and a column each, packed so that one batched product reads them."""

    pos: Int[Tensor, " tile"]  # rising, counted from the first swept position
    vectors: Float[Tensor, "tile width d_model"]  # zero where a tile is not full
    slot: Int[Tensor, " source"]  # place of each source in the flattened (tile, width), rising
    column: Int[Tensor, " source"]
    one_per_position: bool  # tile p is position p

    def at(self, pos: int) -> tuple[Int[Tensor, " source"], Float[Tensor, "source d_model"]]:
        """Columns and vectors of the sources at one position."""
        tiles = torch.searchsorted(self.pos, torch.arange(pos, pos + 2, device=self.pos.device))
        first, end = torch.searchsorted(self.slot, tiles * self.vectors.shape[1]).tolist()
        return self.column[first:end], self.vectors.flatten(0, 1)[self.slot[first:end]]

    def read(
        self, covector: Float[Tensor, "active pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · vector to the columns of all sources at the covectors' positions."""
        n_tiles = int(torch.searchsorted(self.pos, covector.shape[1]))
        if n_tiles == 0 or len(covector) == 0:
            return
        width = self.vectors.shape[1]
        n_sources = int(torch.searchsorted(self.slot, n_tiles * width))
        if not self.one_per_position:
            covector = covector.index_select(1, self.pos[:n_tiles])
        at_tiles = covector.transpose(0, 1)
        weights = torch.bmm(at_tiles, self.vectors[:n_tiles].mT)  # (tile, row, width)
        flat = weights.transpose(0, 1).reshape(len(covector), -1)
        rows[: len(covector)].index_add_(
            1, self.column[:n_sources], flat.index_select(1, self.slot[:n_sources])
        )


@dataclass(frozen=True)
class LayerSources:
    """What enters at one layer."""

    tiles: Tiles  # features, errors and constants, added by the MLP
    mlp_constant: Float[Tensor, "pos d_model"]  # the constants among the tiles
    attention_constant: Float[Tensor, "pos d_model"]  # added by attention: biases
    has_attention_constant: bool  # whether any of it is not zero
    linear: dict[int, LinearPath]  # by the layer that is read
    bias_column: int

    def read_attention_constant(
        self, covector: Float[Tensor, "active pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · constant to the layer's bias column."""
        if self.has_attention_constant:
            constant = self.attention_constant[: covector.shape[1]].flatten()
            rows[: len(covector), self.bias_column] += covector.flatten(1) @ constant


@dataclass(frozen=True)
class Sources:
    """All columns of a row."""

    first: int  # first swept position; those before are context
    layers: tuple[LayerSources, ...]
    inputs: tuple[Float[Tensor, "pos d_model"], ...]  # token embeddings, position embeddings
    context: Context
    feature_column: Int[Tensor, " feat"]
    first_column: tuple[int, ...]  # of each layer's features, and the number of columns
    bias_column: int  # of layer 0; the final norm's and unembedding's follow the last layer's
    nodes: NodeTable  # of the columns

    def columns_below(self, layer: int) -> int:
        """How many columns a target that reads at this layer can see."""
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


def build_sources(
    frozen: FrozenModel, recording: Recording, features: ActiveFeatures, first: int = 0
) -> Sources:
    """Place all sources of a prompt into columns.

    `first` is the first position that any target needs swept: 0, or the number of context-only
    positions if no target is at one of them.
    """
    length, context = len(recording.prompt), recording.prompt.context_only
    inputs = recording.inputs
    bias = len(inputs) * length
    counts = torch.bincount(features.layer, minlength=frozen.n_layers).tolist()
    starts = [bias + frozen.n_layers + 1]
    for count in counts:
        starts.append(starts[-1] + count + length - context)
    # Features are sorted by layer, and every layer before puts its errors in between.
    feature_column = torch.arange(len(features), device=features.layer.device)
    feature_column = feature_column + starts[0] + features.layer * (length - context)
    constants = list(map(attention_constant, frozen.blocks, recording.blocks))
    return Sources(
        first=first,
        layers=tuple(
            _layer(recording, features, layer, feature_column, end, bias, first, constants[layer])
            for layer, end in enumerate(starts[1:])
        ),
        inputs=inputs,
        context=push_forward(frozen, recording, first, constants, bias),
        feature_column=feature_column,
        first_column=tuple(starts),
        bias_column=bias,
        nodes=_nodes(frozen, recording, features),
    )


def _layer(
    recording: Recording,
    features: ActiveFeatures,
    layer: int,
    feature_column: Int[Tensor, " feat"],
    end: int,
    bias_column: int,
    first: int,
    attended: Float[Tensor, "pos d_model"],
) -> LayerSources:
    """What a layer adds: features that write here, errors, constants."""
    length, context = len(recording.prompt), recording.prompt.context_only
    written = written_at(recording, features, layer)
    writing, vectors, error = written.features, written.vectors, written.error
    constant, linear = written.constant, written.linear
    # At context-only positions the MLP's whole output is a constant.
    constant[:context] = recording.blocks[layer].contribution[:context]
    biased = constant[first:].any(1).nonzero()[:, 0] + first
    pos = torch.arange(context, length, device=error.device)
    errors = torch.arange(end - len(pos), end, device=pos.device)
    biases = torch.full_like(biased, bias_column + layer)
    return LayerSources(
        tiles=pack_tiles(
            torch.cat([features.pos[writing], pos, biased]) - first,
            torch.cat([vectors, error[context:], constant[biased]]),
            torch.cat([feature_column[writing], errors, biases]),
        ),
        mlp_constant=constant[first:],
        attention_constant=attended[first:],
        has_attention_constant=bool(attended[first:].any()),
        linear=linear,
        bias_column=bias_column + layer,
    )


def slots(counts: Int[Tensor, " pos"]) -> int:
    """Vectors that tiles have room for, with so many sources by position."""
    return _slots(counts, tile_width(counts))


def tile_width(counts: Int[Tensor, " pos"]) -> int:
    """One tile per position where these are about even, else tiles as small as padding asks for.

    On a long prompt most positions of a layer have an error and no feature.
    """
    widest = max(1, int(counts.max()) if len(counts) else 1)
    most = MOST_PADDING * int(counts.sum())
    if widest * len(counts) <= most:
        return widest
    width = TILE_WIDTH
    while width > 1 and _slots(counts, width) > most:
        width //= 2
    return width


def _slots(counts: Int[Tensor, " pos"], width: int) -> int:
    return int(((counts + width - 1) // width).sum()) * width


def pack_tiles(
    pos: Int[Tensor, " source"],
    vectors: Float[Tensor, "source d_model"],
    column: Int[Tensor, " source"],
) -> Tiles:
    """Group sources by position into tiles of equal width."""
    order = torch.argsort(pos, stable=True)
    pos, column = pos[order], column[order]
    counts = torch.bincount(pos)
    width = tile_width(counts)
    n_tiles = (counts + width - 1) // width
    rank = torch.arange(len(pos), device=pos.device) - (counts.cumsum(0) - counts)[pos]
    slot = (n_tiles.cumsum(0) - n_tiles)[pos] * width + rank
    packed = vectors.new_zeros(int(n_tiles.sum()) * width, vectors.shape[1])
    packed[slot] = vectors[order]
    return Tiles(
        pos=torch.repeat_interleave(torch.arange(len(counts), device=pos.device), n_tiles),
        vectors=packed.view(-1, width, vectors.shape[1]),
        slot=slot,
        column=column,
        one_per_position=bool((n_tiles == 1).all()),
    )


def _nodes(frozen: FrozenModel, recording: Recording, features: ActiveFeatures) -> NodeTable:
    """The nodes of the columns, in column order."""
    length, context = len(recording.prompt), recording.prompt.context_only
    pos, none = np.arange(length), -1
    ids = np.array(recording.prompt.ids)
    parts: list[tuple] = [(NodeKind.TOKEN, none, pos, ids)]
    if recording.positions is not None:
        parts.append((NodeKind.POSITION, none, pos, none))
    parts.append((NodeKind.BIAS, np.arange(frozen.n_layers + 1), none, none))
    layers, feature_pos, index, activation, value = (
        column.detach().cpu().double().numpy()
        if column.is_floating_point()
        else column.cpu().numpy()
        for column in (
            features.layer,
            features.pos,
            features.index,
            features.activation,
            features.value,
        )
    )
    for layer in range(frozen.n_layers):
        here = layers == layer
        parts.append(
            (NodeKind.FEATURE, layer, feature_pos[here], index[here], activation[here], value[here])
        )
        parts.append((NodeKind.ERROR, layer, np.arange(context, length), none))
    return node_table(parts)


def node_table(parts: list[tuple]) -> NodeTable:
    """A table from groups (kind, layer, pos, index[, activation, value]) of arrays and scalars."""
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for kind, *fields in parts:
        filled = [int(kind), *fields, *[np.nan] * (5 - len(fields))]
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
