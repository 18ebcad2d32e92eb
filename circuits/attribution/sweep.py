"""The adjoint sweep: covectors at targets, carried down the frozen model, give rows of the graph.

A covector c on the residual above block m is turned into one on the residual below by the
transpose of the frozen block, and each source is read off where it enters:

    weight of a source   = c[pos] · vector            at the layer and position where it enters
    below the MLP        c += linear path of the MLP  (affine skips only)
    below attention      c += Σ_heads pattern[h, q, k] · (c[q] · W_O[h]) · W_V[h]

with norm gains folded into W_O and W_V and the norms' scales into the pattern, so that a layer is
one matrix product per kv head, a batched product with the pattern, and one product back.  Nothing
here is differentiated: the frozen model is linear, and this is its transpose written out.

Only what is needed is computed.  Targets at one position need no later position, and targets
of one layer no higher layer: targets go in blocks sorted by position, and within a block by layer
from the top, so that the active targets of a layer are the first rows.  The covector of a target
that has not crossed an attention yet is at one position only.  Prefix positions are pushed forward
once (`circuits.attribution.sources`) and never swept.

The direct effect of a low source on a high target can be split at any layer: covectors are pulled
back to it, sources are pushed forward to it, and one product combines them.  On short prompts,
where the lower layers have fewer sources than there are rows above, this is cheaper than pulling
every row back to the tokens:

    weight of a source = Σ_pos c[pos] · (what the source adds to the residual entering `split`)[pos]

Sources at one position affect only that and later positions, and form a group; biases and prefix
positions affect all positions, and form another.

A layer is crossed where it lies.  Where the next lies on another device, covectors go there with
what they have read: of r targets above, at n positions and with N columns, r · (n · d_model + N)
numbers in two copies.  So rows end with the first layer, at no further copy.  Gathered with the
last they would be as many numbers if targets are spread evenly over layers, and more copies.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.sources import Sources
from circuits.features.hook_points import read_at
from circuits.machine import each_block, moved, on_device
from circuits.model.frozen import Covectors, FrozenModel
from circuits.recording.attention import CACHE_POSITIONS, Attention, head_outputs, output_bias
from circuits.recording.record import Recording, entering_attention

BLOCK_POSITIONS = 12288  # targets × positions of a block, for which sources are read at once
BLOCK_WEIGHTS = 2**24  # weights of a block before they are thinned: 64 MB in float32
BLOCKS_PER_WORKER = 4  # more give a better balance, fewer give larger matrices
MOST_WASTE = 0.06  # largest share of a block's positions that its targets do not need


@dataclass(frozen=True)
class SourceGroup:
    """Sources that act from one position on, as components of the residual entering a block."""

    start: int  # counted from the first swept position
    column: Int[Tensor, " source"]
    vectors: Float[Tensor, "source pos d_model"]  # positions from `start` on

    def read(
        self, covector: Float[Tensor, "row pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add covector · vector to the columns of all sources."""
        covectors = covector[:, self.start :].flatten(1)
        vectors = self.vectors[:, : covector.shape[1] - self.start].flatten(1)
        rows.index_add_(1, self.column, covectors @ vectors.T)


@dataclass(frozen=True)
class ForwardPrefix:
    """All sources that enter below block `split`, where that lies; empty if it is 0."""

    split: int = 0
    groups: tuple[SourceGroup, ...] = ()

    def read(
        self, covector: Float[Tensor, "row pos d_model"], rows: Float[Tensor, "row column"]
    ) -> None:
        """Add the weights of all lower sources, from covectors on the residual at `split`."""
        for group in self.groups:
            if group.start < covector.shape[1]:
                group.read(covector, rows)


class Crossing:
    """What looks at the covectors of a block on their way down."""

    def above(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """Those of the first rows at the first positions, above a layer's attention."""

    def below(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """The same with what attention's transpose has added, which is all that has changed."""


def blocks_of(
    targets: Covectors, sources: Sources, split: int, workers: int
) -> list[Int[ndarray, " row"]]:
    """Targets that are swept together, most costly block first, each by layer from the top.

    Targets below `split` never share a block with those that stop there.
    """
    pos, layer = (targets.pos - sources.first).tolist(), targets.layer.tolist()
    level = targets.level.tolist()
    largest = block_positions(sum(pos) + len(pos), workers)
    most_rows = max(1, BLOCK_WEIGHTS // len(sources.nodes))
    order = sorted(range(len(pos)), key=lambda row: (layer[row] < split, pos[row], -level[row]))
    low = next((i for i, row in enumerate(order) if layer[row] < split), len(order))
    blocks = [
        block
        for part in (order[:low], order[low:])
        for block in _blocks(part, pos, largest, most_rows)
    ]

    def cost(rows: list[int]) -> int:
        crossed = sum(layer[row] - (split if layer[row] >= split else 0) for row in rows)
        return crossed * (pos[rows[-1]] + 1)

    blocks.sort(key=cost, reverse=True)
    return [np.array(sorted(rows, key=lambda row: -level[row])) for rows in blocks]


def block_positions(total: int, workers: int) -> int:
    """Positions of a block, of `total`: several blocks per worker, to balance their load."""
    return min(BLOCK_POSITIONS, max(CACHE_POSITIONS, total // (BLOCKS_PER_WORKER * workers)))


def _blocks(order: list[int], pos: list[int], largest: int, most_rows: int) -> Iterator[list[int]]:
    """Rows of each block, taken in order of position.

    A block sweeps all its targets up to the latest position among them, so a target at a later
    position is added only while little of that is wasted.
    """
    block: list[int] = []
    needed = 0  # positions, over the targets of the block
    for row in order:
        swept = (len(block) + 1) * (pos[row] + 1)
        needed += pos[row] + 1
        full = swept > largest or len(block) == most_rows
        if block and (full or swept > (1 + MOST_WASTE) * needed):
            yield block
            block, needed = [], pos[row] + 1
        block.append(row)
    if block:
        yield block


def sweep_block(
    frozen: FrozenModel,
    attention: Attention | None,
    sources: Sources,
    forward_prefix: ForwardPrefix,
    targets: Covectors,
    crossing: Crossing | None = None,
    spread: Float[Tensor, "row pos d_model"] | None = None,
) -> Float[Tensor, "row column"]:
    """Rows of direct effects of one block, whose targets are sorted by level from the top.

    Columns are those of `sources`, up to the last that affects any target of the block.  Without
    attention none is crossed.  `crossing` looks at what goes through attention.  Targets that read
    many positions, up to that of each, have covectors at all of them in `spread`, instead of their
    own.  Covectors are where the layer lies that they cross, and rows end where the last does.
    """
    levels = targets.level.tolist()
    layers, n_pos = targets.layer.tolist(), int(targets.pos.max()) - sources.first + 1
    crossed, bottom = 0, forward_prefix.split if layers[-1] >= forward_prefix.split else 0
    top = frozen.device_at(min(layers[0], max(frozen.n_layers - 1, bottom)))
    pos = on_device(targets.pos - sources.first, top)
    covector = _at_targets(targets, spread, pos, n_pos)
    rows = covector.new_zeros(len(layers), sources.columns_below(layers[0]))
    to_lower: dict[int, list[Tensor]] = {}  # what came through skips, by the layer that they read
    for layer in reversed(range(bottom, min(layers[0] + 1, frozen.n_layers))):
        entering = sources.layers[layer]
        n_above = bisect_left(levels, -2 * layer, key=lambda target: -target)
        if frozen.device_at(layer) != rows.device:
            pos = moved(pos, frozen.device_at(layer))
            own = _at_targets(targets, spread, pos, n_pos)
            covector = _with_first(own, covector[:n_above])
            rows = _with_first(covector.new_zeros(rows.shape), rows[:n_above])
        above = covector[:n_above]
        entering.tiles.read(above, rows)
        for read, path in entering.linear.items():
            to_lower.setdefault(read, []).append(path.transpose(above, sources.first))
        through_mlp = to_lower.pop(layer, [])
        # Where attention and MLP read the same residual, targets of this layer join below both.
        at_layer = bisect_right(levels, -2 * layer, key=lambda target: -target)
        joined = above if frozen.parallel else covector[:at_layer]
        if not frozen.parallel:
            _add(through_mlp, above)
        entering.read_attention_constant(joined, rows)
        if len(joined):
            if crossing is not None:
                crossing.above(layer, joined)
            if attention is not None:
                crossed = crossed if spread is None else len(joined)
                at_prefix = attention.pull_back(layer, joined, pos[: len(joined)], crossed)
                sources.prefix.read(layer, at_prefix, rows)
                crossed = len(joined)
            if crossing is not None:
                crossing.below(layer, joined)
        if frozen.parallel:
            _add(through_mlp, above)
    if bottom:
        forward_prefix.read(covector, rows)
    else:
        sources.read_inputs(covector, rows)
    return rows


def _at_targets(
    targets: Covectors,
    spread: Float[Tensor, "row some_pos d_model"] | None,
    pos: Int[Tensor, " row"],
    n_pos: int,
) -> Float[Tensor, "row pos d_model"]:
    """Covectors of targets that have crossed nothing, where `pos` lies."""
    own, device = targets.covector, pos.device
    covector = own.new_zeros(len(own), n_pos, own.shape[1], device=device)
    if spread is None:
        covector[torch.arange(len(own), device=device), pos] = moved(own, device)
    else:
        covector += moved(spread[:, :n_pos], device)
    return covector


def _with_first(here: Float[Tensor, "*row"], first: Float[Tensor, "*some"]) -> Tensor:
    """The rows here with the first replaced, in place, by those that come from another device."""
    if len(first):
        here[: len(first)] = moved(first, here.device)
    return here


class InPlace:
    """What looks at covectors that stay at their own positions, on their way down.

    At every layer it sees those of the first rows, if there are any.
    """

    def written(self, layer: int, covector: Float[Tensor, "some d_model"]) -> None:
        """Above what the layer's MLP writes."""

    def attended(self, layer: int, covector: Float[Tensor, "some d_model"]) -> None:
        """Above what its attention writes."""

    def entered(self, covector: Float[Tensor, "row d_model"]) -> None:
        """Of all rows, on what enters the first layer."""


def sweep_in_place(
    frozen: FrozenModel,
    recording: Recording,
    sources: Sources,
    targets: Covectors,
    looking: InPlace | None = None,
) -> tuple[Float[Tensor, "row layer head"], Float[Tensor, " row"]]:
    """What every head gives targets at their own positions, and what crosses no attention there.

    The targets are sorted by level from the top.  A head's output is taken whole, wherever it has
    come from, and behind it no other attention is crossed: so with the rest, which is embeddings,
    biases and what the MLPs write, the heads of all layers add up to the target.  Both end with the
    first layer, and go down with the covectors.
    """
    levels, rest = targets.level.tolist(), targets.covector.new_zeros(len(targets.pos))
    n_heads = max(block.n_heads for block in frozen.blocks)
    heads = rest.new_zeros(len(rest), frozen.n_layers, n_heads)
    pos, covector = on_device(targets.pos, rest.device), targets.covector.clone()
    to_lower: dict[int, list[Tensor]] = {}
    for layer in reversed(range(min(int(targets.layer[0]) + 1, frozen.n_layers))):
        block, recorded = frozen.blocks[layer], recording.blocks[layer]
        parts = covector, pos, heads, rest
        covector, pos, heads, rest = (moved(one, block.device) for one in parts)
        above = bisect_left(levels, -2 * layer, key=lambda target: -target)
        written = recorded.contribution.clone()
        for read, path in sources.layers[layer].linear.items():
            residual = recording.blocks[read].mlp_residual[sources.first :]
            written[sources.first :] -= path.forward(residual, sources.first)
            part = path.transpose_at(covector[:above], pos[:above])
            to_lower.setdefault(read, []).append(part)
        rest[:above] += (covector[:above] * written[pos[:above]]).sum(1)
        if looking is not None and above:
            looking.written(layer, covector[:above])
        through_mlp = to_lower.pop(layer, [])
        if not frozen.parallel:
            _add(through_mlp, covector)
        at_layer = bisect_right(levels, -2 * layer, key=lambda target: -target)
        joined = slice(above if frozen.parallel else at_layer)
        bias = output_bias(block, recorded)
        rest[joined] += (covector[joined] * bias[pos[joined]]).sum(1)
        outputs = head_outputs(block, recorded, entering_attention(frozen, recording, layer))
        heads[joined, layer] = read_at(outputs, targets.pos[joined], covector[joined]).T
        if looking is not None and len(covector[joined]):
            looking.attended(layer, covector[joined])
        if frozen.parallel:
            _add(through_mlp, covector)
    parts = covector, pos, heads, rest  # where no layer has been passed, still as they were given
    covector, pos, heads, rest = (moved(one, frozen.device) for one in parts)
    if looking is not None:
        looking.entered(covector)
    inputs = torch.stack(recording.inputs).sum(0)
    return heads, rest + (covector * inputs[pos]).sum(1)


def _add(parts: list[Tensor], covector: Float[Tensor, "row *pos d_model"]) -> None:
    """Add covectors that came through skips to their rows, the first ones, in place."""
    for part in parts:
        covector[: len(part)] += part


def build_forward_prefix(
    frozen: FrozenModel, attention: Attention, sources: Sources, split: int
) -> ForwardPrefix:
    """Push all sources that enter below block `split` forward to it."""
    if split == 0:
        return ForwardPrefix()
    first, length = sources.first, len(sources.inputs[0])

    def group_at(start: int) -> SourceGroup:
        return _group(frozen, attention, sources, split, start)

    starts = list(range(length - first))
    groups = each_block(group_at, starts, frozen.device)
    return ForwardPrefix(split, (_shared_group(frozen, attention, sources, split), *groups))


def _group(
    frozen: FrozenModel, attention: Attention, sources: Sources, split: int, start: int
) -> SourceGroup:
    """Token, features and errors at one swept position."""
    pos, length = sources.first + start, len(sources.inputs[0])
    written = [entering.tiles.at(start) for entering in sources.layers[:split]]
    inputs = torch.stack([vectors[pos] for vectors in sources.inputs])
    kinds = torch.arange(len(inputs), device=inputs.device)
    entering = torch.cat([moved(column, inputs.device) for column, _ in written]).unique()
    columns = torch.cat([kinds * length + pos, entering])
    residual = inputs.new_zeros(len(columns), length - pos, frozen.d_model)
    residual[: len(inputs), 0] = inputs
    for layer, (column, vectors) in enumerate(written):
        # Columns are in layer order, so those that have entered come first.
        residual = moved(residual, frozen.device_at(layer))
        entered = residual[: int(torch.searchsorted(columns, sources.first_column[layer]))]
        attended = attention.push_forward(layer, entered)
        _add_layer(frozen, sources, layer, entered, attended, pos)
        place = torch.searchsorted(columns, moved(column, columns.device))
        residual[moved(place, residual.device), 0] += vectors
    there = frozen.device_at(split)
    return SourceGroup(start, moved(columns, there), moved(residual, there))


def _shared_group(
    frozen: FrozenModel, attention: Attention, sources: Sources, split: int
) -> SourceGroup:
    """Biases and prefix tokens, which act at all swept positions."""
    prefix, first = sources.prefix, sources.first
    n_pos = len(sources.inputs[0]) - first
    residual = sources.inputs[0].new_zeros(len(prefix.column), n_pos, frozen.d_model)
    for layer, entering in enumerate(sources.layers[:split]):
        residual = moved(residual, frozen.device_at(layer))
        values = prefix.values[layer].T.unflatten(1, (first, -1)) if first else None
        attended = attention.push_forward(layer, residual, values)
        bias = int((prefix.column == entering.bias_column).nonzero())
        attended[bias] += entering.attention_constant
        _add_layer(frozen, sources, layer, residual, attended, first)
        residual[bias] += entering.mlp_constant
    there = frozen.device_at(split)
    return SourceGroup(0, moved(prefix.column, there), moved(residual, there))


def _add_layer(
    frozen: FrozenModel,
    sources: Sources,
    layer: int,
    residual: Float[Tensor, "component pos d_model"],
    attended: Float[Tensor, "component pos d_model"],
    pos: int,
) -> None:
    """Add attention's output and the MLP's linear path from it, in place."""
    linear = sources.layers[layer].linear.get(layer)  # skips to other layers exclude a split
    if linear is None:
        residual += attended
    elif frozen.parallel:
        residual += attended + linear.forward(residual, pos)
    else:
        residual += attended
        residual += linear.forward(residual, pos)
