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

BLOCK_POSITIONS = 1536  # targets × positions in one block: large enough for gemm, small for cache
KEY_CHUNK = 128  # keys mixed at once; queries before them see nothing of them


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
        n_rows, n_pos, d_model = covector.shape
        d_head = self.value[layer].shape[1]
        own = covector[torch.arange(crossed, n_rows, device=pos.device), pos[crossed:]]
        mixed: list[Tensor] = []
        for kv_head, output in enumerate(self.output[layer]):
            group = output.shape[1] // d_head
            below = covector.new_empty(n_rows, self.first + n_pos, d_head)
            heads = covector[:crossed].view(-1, d_model) @ output
            heads = heads.view(crossed, n_pos * group, d_head)
            self._mix(layer, kv_head, heads, below[:crossed])
            own_heads = (own @ output).view(len(own), group, d_head)
            self._mix_own(layer, kv_head, own_heads, pos[crossed:], below[crossed:])
            mixed.append(below)
        flat = covector.view(-1, d_model)
        for below, value in zip(mixed, self.value[layer], strict=True):
            flat.addmm_(below[:, self.first :].reshape(len(flat), -1), value)
        return torch.cat([below[:, : self.first] for below in mixed], 2)

    def _mix(self, layer: int, kv_head: int, heads: Tensor, below: Tensor) -> None:
        """Queries to keys: heads (row, query * group, d_head) into below (row, key, d_head)."""
        mixing = self.mixing[layer][kv_head]
        n_rows, n_queries, _ = heads.shape
        group = self.output[layer].shape[2] // self.value[layer].shape[1]
        if self.first:
            part = mixing[: self.first, :n_queries].expand(n_rows, -1, -1)
            torch.bmm(part, heads, out=below[:, : self.first])
        for chunk, start in enumerate(range(0, n_queries // group, KEY_CHUNK)):
            stop = min(start + KEY_CHUNK, n_queries // group)
            queries = slice(start * group, (self.last_query[layer][chunk] + 1) * group)
            keys = slice(self.first + start, self.first + stop)
            part = mixing[keys, queries][:, : n_queries - start * group].expand(n_rows, -1, -1)
            torch.bmm(part, heads[:, queries], out=below[:, keys])

    def _mix_own(
        self, layer: int, kv_head: int, heads: Tensor, pos: Int[Tensor, " row"], below: Tensor
    ) -> None:
        """The same for rows with one query each: heads (row, group, d_head)."""
        mixing = self.mixing[layer][kv_head][: below.shape[1]]
        of_query = mixing.view(len(mixing), -1, heads.shape[1])[:, pos]
        torch.bmm(of_query.transpose(0, 1), heads, out=below)


def _last_queries(pattern: Float[Tensor, "head query key"]) -> list[int]:
    """Per chunk of keys, the last query that attends to any of them (sliding windows end)."""
    seen = pattern.amax(0) > 0
    last: list[int] = []
    for start in range(0, seen.shape[1], KEY_CHUNK):
        queries = seen[:, start : start + KEY_CHUNK].any(1).nonzero()
        last.append(int(queries[-1]) if len(queries) else start)
    return last


def sweep(
    frozen: FrozenModel, attention: Attention, sources: Sources, targets: Covectors
) -> Iterator[tuple[Int[Tensor, " row"], Float[Tensor, "row column"]]]:
    """Rows of direct effects, block by block: which targets, and their weights on all sources.

    Columns are those of `sources`, up to the last that any target of the block can see.
    """
    pos, layer = (targets.pos - sources.first).tolist(), targets.layer.tolist()
    order = sorted(range(len(pos)), key=lambda row: (pos[row], -layer[row]))
    start = 0
    while start < len(order):
        stop = start + 1
        # The next target is the latest so far, so it sets the width of the whole block.
        while stop < len(order) and (stop + 1 - start) * (pos[order[stop]] + 1) <= BLOCK_POSITIONS:
            stop += 1
        block = sorted(order[start:stop], key=lambda row: -layer[row])
        rows = torch.tensor(block, device=targets.pos.device)
        yield rows, _sweep_block(frozen, attention, sources, targets.take(rows))
        start = stop


def _sweep_block(
    frozen: FrozenModel, attention: Attention, sources: Sources, targets: Covectors
) -> Float[Tensor, "row column"]:
    """Rows of one block; its targets are sorted by layer from the top."""
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
