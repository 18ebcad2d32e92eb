"""The adjoint sweep: covectors at targets, carried down the frozen model, give rows of the graph.

A covector c on the residual above block m is turned into one on the residual below by the
transpose of the frozen block, and each source is read off where it enters:

    weight of a source   = c[pos] · vector            at the layer and position where it enters
    below the MLP        c += linear path of the MLP  (affine skips only)
    below attention      c += Σ_heads pattern[h, q, k] · (c[q] · W_O[h]) · W_V[h]

with norm gains folded into W_O and W_V and the norms' scales into the pattern, so that a layer is
one matrix product per kv head, a batched product with the pattern, and one product back.  Nothing
here is differentiated: the frozen model is linear, and this is its transpose written out.

What is not needed is not computed.  Targets at one position need no later position, and targets
of one layer no higher layer: targets go in blocks sorted by position, and within a block by layer
from the top, so that the active targets of a layer are a growing prefix.  A target that has
crossed no attention yet lives at one position only.  Context-only positions are pushed forward
once (`circuits.attribution.prefix_positions`) and never swept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.forward_prefix import Lower
from circuits.attribution.sources import Sources
from circuits.model.covectors import Covectors
from circuits.model.frozen import FrozenModel
from circuits.recording.attention import CACHE_POSITIONS, Attention

BLOCK_POSITIONS = 12288  # targets × positions of a block, for which sources are read at once
BLOCK_WEIGHTS = 2**24  # weights of a block before they are thinned: 64 MB in float32
BLOCKS_PER_WORKER = 4  # more balance better, fewer multiply larger matrices
MOST_WASTE = 0.06  # share of positions that a block may carry for targets that end before


def blocks_of(
    targets: Covectors, sources: Sources, floor: int, workers: int
) -> list[Int[Tensor, " row"]]:
    """Targets that are swept together, costly blocks first, each by layer from the top.

    Targets below `floor` never share a block with those that stop there.
    """
    pos, layer = (targets.pos - sources.first).tolist(), targets.layer.tolist()
    largest = block_positions(sum(pos) + len(pos), workers)
    most_rows = max(1, BLOCK_WEIGHTS // len(sources.nodes))
    order = sorted(range(len(pos)), key=lambda row: (layer[row] < floor, pos[row], -layer[row]))
    low = next((i for i, row in enumerate(order) if layer[row] < floor), len(order))
    blocks = [
        block
        for part in (order[:low], order[low:])
        for block in _blocks(part, pos, largest, most_rows)
    ]

    def cost(rows: list[int]) -> int:
        crossed = sum(layer[row] - (floor if layer[row] >= floor else 0) for row in rows)
        return crossed * (pos[rows[-1]] + 1)

    blocks.sort(key=cost, reverse=True)
    return [
        torch.tensor(sorted(rows, key=lambda row: -layer[row]), device=targets.pos.device)
        for rows in blocks
    ]


def block_positions(total: int, workers: int) -> int:
    """Positions of a block, of so many: several per worker, so that none waits long at the end."""
    return min(BLOCK_POSITIONS, max(CACHE_POSITIONS, total // (BLOCKS_PER_WORKER * workers)))


def _blocks(order: list[int], pos: list[int], largest: int, most_rows: int) -> Iterator[list[int]]:
    """Rows of each block, taken in order of position.

    A block carries all its targets up to the position of its latest, so a later position only
    joins while little is carried in vain.
    """
    block: list[int] = []
    needed = 0  # positions, over the targets of the block
    for row in order:
        carried = (len(block) + 1) * (pos[row] + 1)
        needed += pos[row] + 1
        full = carried > largest or len(block) == most_rows
        if block and (full or carried > (1 + MOST_WASTE) * needed):
            yield block
            block, needed = [], pos[row] + 1
        block.append(row)
    if block:
        yield block


def sweep_block(
    frozen: FrozenModel,
    attention: Attention,
    sources: Sources,
    lower: Lower,
    targets: Covectors,
) -> Float[Tensor, "row column"]:
    """Rows of direct effects of one block, whose targets are sorted by layer from the top.

    Columns are those of `sources`, up to the last that any target of the block can see.
    """
    pos = targets.pos - sources.first
    layers = targets.layer.tolist()
    rows = targets.covector.new_zeros(len(layers), sources.columns_below(layers[0]))
    covector = targets.covector.new_zeros(len(layers), int(pos.max()) + 1, frozen.d_model)
    covector[torch.arange(len(layers), device=pos.device), pos] = targets.covector
    crossed, bottom = 0, lower.floor if layers[-1] >= lower.floor else 0
    to_lower: dict[int, list[Tensor]] = {}  # what came through skips, by the layer that they read
    for layer in reversed(range(bottom, min(layers[0] + 1, frozen.n_layers))):
        entering = sources.layers[layer]
        above = covector[: bisect_left(layers, -layer, key=lambda target: -target)]
        entering.tiles.read(above, rows)
        for read, path in entering.linear.items():
            to_lower.setdefault(read, []).append(path.transpose(above, sources.first))
        through_mlp = to_lower.pop(layer, [])
        # Where attention and MLP read the same residual, targets of this layer join below both.
        at_layer = bisect_right(layers, -layer, key=lambda target: -target)
        joined = above if frozen.parallel else covector[:at_layer]
        if not frozen.parallel:
            _add(through_mlp, above)
        entering.read_attention_constant(joined, rows)
        if len(joined):
            at_context = attention.pull_back(layer, joined, pos[: len(joined)], crossed)
            sources.context.read(layer, at_context, rows)
            crossed = len(joined)
        if frozen.parallel:
            _add(through_mlp, above)
    if bottom:
        lower.read(covector, rows)
    else:
        sources.read_inputs(covector, rows)
    return rows


def _add(parts: list[Tensor], covector: Float[Tensor, "row pos d_model"]) -> None:
    """Add what skips gave to their rows, which are the first ones, in place."""
    for part in parts:
        covector[: len(part)] += part
