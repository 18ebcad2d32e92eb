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

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement, written_at
from circuits.features.active import ActiveFeatures, LinearPath
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import attended, attention_constant
from circuits.recording.record import Recording
from graphs.core.nodes import NodeKind, NodeTable

MOST_PADDING = 3  # largest number of slots per source
TILE_WIDTH = 64  # largest tile where positions have unequal numbers of sources


@dataclass(frozen=True)
class Tiles:
    """Vectors with a position and a column each, packed so that one batched product reads them."""

    pos: Int[Tensor, " tile"]  # ascending, counted from the first swept position
    vectors: Float[Tensor, "tile width d_model"]  # zero where a tile is not full
    slot: Int[Tensor, " source"]  # place of each source in the flattened (tile, width), ascending
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
    """Sources that enter at one layer."""

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
            rows[: len(covector), self.bias_column] += covector.flatten(1) @ constant


@dataclass(frozen=True)
class PrefixValues:
    """Components of the prefix positions' residual, as values of every layer's attention."""

    column: Int[Tensor, " component"]
    values: tuple[Float[Tensor, "prefix_values component"], ...]  # per layer, (pos, kv head) flat

    def read(
        self,
        layer: int,
        covector: Float[Tensor, "active prefix kv_heads"],
        rows: Float[Tensor, "row column"],
    ) -> None:
        """Add covector · value to the columns of all components."""
        if len(self.column):
            weights = covector.flatten(1) @ self.values[layer]
            rows[: len(covector)].index_add_(1, self.column, weights)


@dataclass(frozen=True)
class Sources:
    """All columns of a row."""

    first: int  # first swept position, after the prefix
    layers: tuple[LayerSources, ...]
    inputs: tuple[Float[Tensor, "pos d_model"], ...]  # token embeddings, position embeddings
    prefix: PrefixValues
    feature_column: Int[Tensor, " feat"]
    first_column: tuple[int, ...]  # of each layer's features, and the number of columns
    bias_column: int  # of layer 0; the final norm's and unembedding's follow the last layer's
    nodes: NodeTable  # of the columns

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


def build_sources(local: LocalReplacement) -> Sources:
    """Assign all sources of a prompt to columns."""
    frozen, recording, features = local.frozen, local.recording, local.features
    first = local.first_swept
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
    inputs = recording.inputs
    bias = len(inputs) * length
    counts = torch.bincount(features.layer, minlength=frozen.n_layers).tolist()
    starts = [bias + frozen.n_layers + 1]
    for count in counts:
        starts.append(starts[-1] + count + length - n_prefix)
    # Features are sorted by layer, with the errors of each layer after its features.
    feature_column = torch.arange(len(features), device=features.layer.device)
    feature_column = feature_column + starts[0] + features.layer * (length - n_prefix)
    constants = list(map(attention_constant, frozen.blocks, recording.blocks))
    return Sources(
        first=first,
        layers=tuple(
            _layer(local, layer, feature_column, end, bias, constants[layer])
            for layer, end in enumerate(starts[1:])
        ),
        inputs=inputs,
        prefix=prefix_values(frozen, recording, first, constants, bias),
        feature_column=feature_column,
        first_column=tuple(starts),
        bias_column=bias,
        nodes=_nodes(frozen, recording, features),
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
    residual = recording.tokens.new_zeros(len(inputs) * first + n_layers, first, frozen.d_model)
    for kind, vectors in enumerate(inputs):
        residual[kind * first + own, own] = vectors[:first]
    values: list[Tensor] = []
    for layer, (block, recorded) in enumerate(zip(frozen.blocks, recording.blocks, strict=True)):
        value = residual @ block.value.T
        values.append(value.flatten(1).T.contiguous())
        residual = residual + attended(
            block, recorded, value / recorded.attention_denominator[:first, None]
        )
        constant = attention_constants[layer][:first] + recorded.contribution[:first]
        residual[len(inputs) * first + layer] += constant
    return PrefixValues(column=torch.cat(columns), values=tuple(values))


def _layer(
    local: LocalReplacement,
    layer: int,
    feature_column: Int[Tensor, " feat"],
    end: int,
    bias_column: int,
    attended: Float[Tensor, "pos d_model"],
) -> LayerSources:
    """The sources of a layer: features that write here, errors, constants."""
    recording, features, first = local.recording, local.features, local.first_swept
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
    written = written_at(local, layer)
    writing, vectors, error = written.features, written.vectors, written.error
    constant, linear = written.constant, written.linear
    # At prefix positions the MLP's whole output is a constant.
    constant[:n_prefix] = recording.blocks[layer].contribution[:n_prefix]
    biased = constant[first:].any(1).nonzero()[:, 0] + first
    pos = torch.arange(n_prefix, length, device=error.device)
    errors = torch.arange(end - len(pos), end, device=pos.device)
    biases = torch.full_like(biased, bias_column + layer)
    return LayerSources(
        tiles=pack_tiles(
            torch.cat([features.pos[writing], pos, biased]) - first,
            torch.cat([vectors, error[n_prefix:], constant[biased]]),
            torch.cat([feature_column[writing], errors, biases]),
        ),
        mlp_constant=constant[first:],
        attention_constant=attended[first:],
        has_attention_constant=bool(attended[first:].any()),
        linear=linear,
        bias_column=bias_column + layer,
    )


def slots(counts: Int[Tensor, " pos"]) -> int:
    """Number of slots of tiles with these numbers of sources by position."""
    return _slots(counts, tile_width(counts))


def tile_width(counts: Int[Tensor, " pos"]) -> int:
    """The width of one tile per position if sources are spread evenly, else limited by padding.

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
    length, n_prefix = len(recording.prompt), recording.prompt.n_prefix
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
        parts.append((NodeKind.ERROR, layer, np.arange(n_prefix, length), none))
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
