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
once (`circuits.context`) and never swept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.covectors import Covectors
from circuits.frozen import FrozenModel
from circuits.recording import Recording
from circuits.sources import Sources

BLOCK_POSITIONS = 12288  # targets × positions of a block, for which sources are read at once
CACHE_POSITIONS = 1536  # of these, how many cross an attention together: enough for gemm, in cache
BLOCK_WEIGHTS = 2**24  # weights of a block before they are thinned: 64 MB in float32
MOST_WASTE = 0.06  # share of positions that a block may carry for targets that end before
KEY_CHUNK = 64  # keys mixed at once; queries before them see nothing of them


class Attention:
    """Transposed frozen attention of every layer on one prompt, from position `first` on."""

    def __init__(self, frozen: FrozenModel, recording: Recording, first: int = 0) -> None:
        self.first = first
        self.output: list[Tensor] = []  # per layer (kv_head, d_model, group * d_head)
        self.value: list[Tensor] = []  # per layer (kv_head, d_head, d_model)
        self.mixing: list[Tensor] = []  # per layer (kv_head, key, query * group), query from first
        self.last_query: list[list[int]] = []  # per layer and key chunk: queries that see it
        for block, seen in zip(frozen.blocks, recording.blocks, strict=True):
            length = seen.pattern.shape[1]
            value = block.value.unflatten(0, (-1, block.d_head))
            scaled = seen.pattern / seen.post_attention_denominator[:, None]
            scaled = (scaled / seen.attention_denominator)[:, first:]
            mixing = scaled.unflatten(0, (len(value), -1)).permute(0, 3, 2, 1)
            self.output.append(
                block.output.unflatten(1, (len(value), -1)).transpose(0, 1).contiguous()
            )
            self.value.append(value)
            self.mixing.append(mixing.reshape(len(value), length, -1))
            self.last_query.append(_last_queries(seen.pattern[:, first:, first:]))

    def pull_back(
        self,
        layer: int,
        covector: Float[Tensor, "row pos d_model"],
        pos: Int[Tensor, " row"],
        crossed: int,
    ) -> Float[Tensor, "row context kv_heads"]:
        """Add to covectors above a layer's attention what they are below it, in place.

        Positions count from `first`.  Rows from `crossed` on are zero but at their own `pos`.
        Returns covectors on the values of the positions before `first`.
        """
        n_chunks = -(-covector.shape[0] * covector.shape[1] // CACHE_POSITIONS)
        step = -(-len(covector) // n_chunks)  # chunks of equal size: a small last one is slow
        context = [
            self._pull_back(
                layer, covector[i : i + step], pos[i : i + step], min(max(crossed - i, 0), step)
            )
            for i in range(0, len(covector), step)
        ]
        return torch.cat(context)

    def _pull_back(
        self, layer: int, covector: Tensor, pos: Int[Tensor, " row"], crossed: int
    ) -> Float[Tensor, "row context kv_heads"]:
        n_rows, n_pos, d_model = covector.shape
        d_head = self.value[layer].shape[1]
        own = covector[torch.arange(crossed, n_rows, device=pos.device), pos[crossed:]]
        below: list[Tensor] = []  # per kv head (row, pos, d_head)
        context: list[Tensor] = []  # per kv head (row, context, d_head)
        for mixing, output in zip(self.mixing[layer], self.output[layer], strict=True):
            group = output.shape[1] // d_head
            heads = covector[:crossed].view(-1, d_model) @ output
            heads = heads.view(crossed, n_pos * group, d_head)
            before = mixing[: self.first, : n_pos * group].expand(crossed, -1, -1)
            own_query = mixing.view(len(mixing), -1, group)[: self.first + n_pos, pos[crossed:]]
            own_heads = (own @ output).view(len(own), group, d_head)
            of_own = torch.bmm(own_query.transpose(0, 1), own_heads)
            swept = covector.new_empty(n_rows, n_pos, d_head)
            self._mix(layer, mixing[self.first :], heads, swept[:crossed])
            swept[crossed:] = of_own[:, self.first :]
            below.append(swept)
            context.append(torch.cat([torch.bmm(before, heads), of_own[:, : self.first]]))
        flat = covector.view(-1, d_model)
        for swept, value in zip(below, self.value[layer], strict=True):
            flat.addmm_(swept.view(-1, d_head), value)
        return torch.cat(context, 2)

    def _mix(
        self,
        layer: int,
        mixing: Float[Tensor, "key queries"],
        heads: Float[Tensor, "active some_queries d_head"],
        below: Float[Tensor, "active pos d_head"],
    ) -> None:
        """Pattern · heads into `below`, chunk by chunk of keys, each from the queries it hears."""
        n_rows, n_queries, _ = heads.shape
        n_pos = below.shape[1]
        group = n_queries // n_pos
        for chunk, start in enumerate(range(0, n_pos, KEY_CHUNK)):
            keys = slice(start, min(start + KEY_CHUNK, n_pos))
            end = min((self.last_query[layer][chunk] + 1) * group, n_queries)
            part = mixing[keys, start * group : end].expand(n_rows, -1, -1)
            # A contiguous result, as of a single chunk, lets the product run as one batch.
            torch.bmm(part, heads[:, start * group : end], out=below[:, keys])


def _last_queries(pattern: Float[Tensor, "head query key"]) -> list[int]:
    """Per chunk of keys, the last query that attends to any of them (sliding windows end)."""
    seen = pattern.amax(0) > 0
    last: list[int] = []
    for start in range(0, seen.shape[1], KEY_CHUNK):
        queries = seen[:, start : start + KEY_CHUNK].any(1).nonzero()
        last.append(int(queries[-1]) if len(queries) else start)
    return last


def blocks_of(targets: Covectors, sources: Sources, workers: int) -> list[Int[Tensor, " row"]]:
    """Targets that are swept together, costly blocks first, each by layer from the top."""
    pos, layer = (targets.pos - sources.first).tolist(), targets.layer.tolist()
    # Several blocks per worker, so that none waits long for the others at the end.
    fair = (sum(pos) + len(pos)) // (4 * workers)
    largest = min(BLOCK_POSITIONS, max(CACHE_POSITIONS, fair))
    most_rows = max(1, BLOCK_WEIGHTS // len(sources.nodes))
    blocks = list(_blocks(pos, layer, largest, most_rows))
    blocks.sort(key=lambda rows: -len(rows) * pos[rows[0]])
    return [
        torch.tensor(sorted(rows, key=lambda row: -layer[row]), device=targets.pos.device)
        for rows in blocks
    ]


def _blocks(pos: list[int], layer: list[int], largest: int, most_rows: int) -> Iterator[list[int]]:
    """Rows of each block.

    A block carries all its targets up to the position of its latest, so a later position only
    joins while little is carried in vain.
    """
    block: list[int] = []
    needed = 0  # positions, over the targets of the block
    for row in sorted(range(len(pos)), key=lambda row: (pos[row], -layer[row])):
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
    frozen: FrozenModel, attention: Attention, sources: Sources, targets: Covectors
) -> Float[Tensor, "row column"]:
    """Rows of direct effects of one block, whose targets are sorted by layer from the top.

    Columns are those of `sources`, up to the last that any target of the block can see.
    """
    pos = targets.pos - sources.first
    layers = targets.layer.tolist()
    rows = targets.covector.new_zeros(len(layers), sources.columns_below(layers[0]))
    covector = targets.covector.new_zeros(len(layers), int(pos.max()) + 1, frozen.d_model)
    covector[torch.arange(len(layers), device=pos.device), pos] = targets.covector
    crossed = 0
    for layer in reversed(range(min(layers[0] + 1, frozen.n_layers))):
        entering = sources.layers[layer]
        above = covector[: bisect_left(layers, -layer, key=lambda target: -target)]
        entering.tiles.read(above, rows)
        through_mlp = entering.linear.transpose(above, sources.first) if entering.linear else None
        # Where attention and MLP read the same residual, targets of this layer join below both.
        at_layer = bisect_right(layers, -layer, key=lambda target: -target)
        joined = above if frozen.parallel else covector[:at_layer]
        if through_mlp is not None and not frozen.parallel:
            above += through_mlp
        entering.read_attention_constant(joined, rows)
        if len(joined):
            at_context = attention.pull_back(layer, joined, pos[: len(joined)], crossed)
            sources.context.read(layer, at_context, rows)
            crossed = len(joined)
        if through_mlp is not None and frozen.parallel:
            above += through_mlp
    sources.read_inputs(covector, rows)
    return rows
