"""Sources of the lower layers, pushed forward to the residual that enters block `floor`.

Direct effects of low sources on high targets can be cut at any layer: targets come down to it,
sources come up to it, and they meet in one product.  On short prompts, where sources of the lower
layers are fewer than the rows above, that is cheaper than pulling every row down to the tokens:

    weight of a source = Σ_pos c[pos] · (what the source adds to the residual entering `floor`)[pos]

Sources of one position are heard from there on, so they form a group with these positions; biases
and context-only positions form one that is heard everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.sources import Sources
from circuits.machine.cores import each_block
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import Attention


@dataclass(frozen=True)
class Group:
    """Sources heard from one position on, as parts of the residual that enters a block."""

    start: int  # counted from the first swept position
    column: Int[Tensor, " source"]
    vectors: Float[Tensor, "source pos d_model"]  # positions from `start` on

    def read(
        self, covector: Float[Tensor, "row pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · vector to the columns of all sources."""
        heard = covector[:, self.start :].flatten(1)
        vectors = self.vectors[:, : covector.shape[1] - self.start].flatten(1)
        rows.index_add_(1, self.column, heard @ vectors.T)


@dataclass(frozen=True)
class Lower:
    """All that enters below block `floor`; nothing if that is 0."""

    floor: int = 0
    groups: tuple[Group, ...] = ()

    def read(
        self, covector: Float[Tensor, "row pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add the weights of all lower sources, from covectors on the residual at `floor`."""
        for group in self.groups:
            if group.start < covector.shape[1]:
                group.read(covector, rows)


def push_lower(frozen: FrozenModel, attention: Attention, sources: Sources, floor: int) -> Lower:
    """Push all sources that enter below block `floor` up to it."""
    if floor == 0:
        return Lower()
    first, length = sources.first, len(sources.inputs[0])

    def group_at(start: int) -> Group:
        return _group(frozen, attention, sources, floor, start)

    starts = list(range(length - first))
    groups = each_block(group_at, starts, sources.feature_column.device)
    return Lower(floor, (_everywhere(frozen, attention, sources, floor), *groups))


def _group(
    frozen: FrozenModel, attention: Attention, sources: Sources, floor: int, start: int
) -> Group:
    """Token, features and errors at one swept position."""
    pos, length = sources.first + start, len(sources.inputs[0])
    written = [entering.tiles.at(start) for entering in sources.layers[:floor]]
    own = [
        (column[column >= sources.first_column[0]], vectors[column >= sources.first_column[0]])
        for column, vectors in written
    ]
    inputs = torch.stack([vectors[pos] for vectors in sources.inputs])
    kinds = torch.arange(len(inputs), device=inputs.device)
    columns = torch.cat([kinds * length + pos, torch.cat([column for column, _ in own]).unique()])
    residual = inputs.new_zeros(len(columns), length - pos, frozen.d_model)
    residual[: len(inputs), 0] = inputs
    for layer, (column, vectors) in enumerate(own):
        # Columns rise with the layer, so those that have entered are a prefix.
        entered = residual[: int(torch.searchsorted(columns, sources.first_column[layer]))]
        attended = attention.push_forward(layer, entered)
        _add_layer(frozen, sources, layer, entered, attended, pos)
        residual[torch.searchsorted(columns, column), 0] += vectors
    return Group(start, columns, residual)


def _everywhere(frozen: FrozenModel, attention: Attention, sources: Sources, floor: int) -> Group:
    """Biases, and tokens at context-only positions, at all swept positions."""
    context, first = sources.context, sources.first
    n_pos = len(sources.inputs[0]) - first
    residual = sources.inputs[0].new_zeros(len(context.column), n_pos, frozen.d_model)
    for layer, entering in enumerate(sources.layers[:floor]):
        values = context.values[layer].T.unflatten(1, (first, -1)) if first else None
        attended = attention.push_forward(layer, residual, values)
        bias = int((context.column == entering.bias_column).nonzero())
        attended[bias] += entering.attention_constant
        _add_layer(frozen, sources, layer, residual, attended, first)
        residual[bias] += entering.mlp_constant
    return Group(0, context.column, residual)


def _add_layer(
    frozen: FrozenModel,
    sources: Sources,
    layer: int,
    residual: Float[Tensor, "component pos d_model"],
    attended: Float[Tensor, "component pos d_model"],
    pos: int,
) -> None:
    """Add what attention gave, and what the MLP's linear path makes of it, in place."""
    linear = sources.layers[layer].linear.get(layer)  # no other is there, or there is no cut
    if linear is None:
        residual += attended
    elif frozen.parallel:
        residual += attended + linear.forward(residual, pos)
    else:
        residual += attended
        residual += linear.forward(residual, pos)
