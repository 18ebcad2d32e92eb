"""The adjoint sweep: covectors at targets, carried down the frozen model, give rows of the graph.

A covector c on the residual above block m is turned into one on the residual below by the
transpose of the frozen block, and each source is read off where it enters:

    weight of a source   = c[pos] · vector            at the layer and position where it enters
    below the MLP        c += linear path of the MLP  (affine skips only)
    below attention      c += Σ_heads pattern[h, q, k] · (c[q] · W_O[h]) · W_V[h]

with norm gains folded into W_O and W_V and the norms' scales into the pattern, so that a layer is
one matrix product per kv head, a batched product with the pattern, and one product back.  Nothing
here is differentiated: the frozen model is linear, and this is its transpose written out.

Targets at one position need no later position, and targets of one layer no higher layer, so
targets go in blocks sorted by position, and within a block by layer from the top: the active
targets of a layer are a growing prefix of the block.
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
    """Transposed frozen attention of every layer on one prompt."""

    def __init__(self, frozen: FrozenModel, recording: Recording) -> None:
        self.output: list[Tensor] = []  # per layer (kv_head, d_model, group * d_head)
        self.value: list[Tensor] = []  # per layer (kv_head, d_head, d_model)
        self.mixing: list[Tensor] = []  # per layer (kv_head, key, query * group)
        self.last_query: list[list[int]] = []  # per layer and key chunk: queries that see it
        for block, seen in zip(frozen.blocks, recording.blocks, strict=True):
            n_heads, length, _ = seen.pattern.shape
            value = block.value.unflatten(0, (-1, block.d_head))
            group = n_heads // len(value)
            scaled = seen.pattern / seen.post_attention_denominator[:, None]
            scaled = scaled / seen.attention_denominator
            mixing = scaled.unflatten(0, (-1, group)).permute(0, 3, 2, 1)
            self.output.append(
                block.output.unflatten(1, (len(value), -1)).transpose(0, 1).contiguous()
            )
            self.value.append(value)
            self.mixing.append(mixing.reshape(len(value), length, length * group))
            self.last_query.append(_last_queries(seen.pattern))

    def pull_back(self, layer: int, covector: Float[Tensor, "row pos d_model"]) -> None:
        """Add to covectors above a layer's attention what they are below it, in place."""
        n_rows, n_pos, d_model = covector.shape
        flat = covector.view(-1, d_model)
        mixed: list[Tensor] = []
        for output, mixing in zip(self.output[layer], self.mixing[layer], strict=True):
            group = mixing.shape[1] // mixing.shape[0]
            heads = (flat @ output).view(n_rows, n_pos * group, -1)
            below = heads.new_empty(n_rows, n_pos, heads.shape[2])
            for chunk, start in enumerate(range(0, n_pos, KEY_CHUNK)):
                keys = slice(start, min(start + KEY_CHUNK, n_pos))
                end = min(self.last_query[layer][chunk] + 1, n_pos)
                queries = slice(start * group, end * group)
                part = mixing[keys, queries].expand(n_rows, -1, -1)
                torch.bmm(part, heads[:, queries], out=below[:, keys])
            mixed.append(below.view(-1, below.shape[2]))
        for below, value in zip(mixed, self.value[layer], strict=True):
            flat.addmm_(below, value)


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
    pos, layer = targets.pos.tolist(), targets.layer.tolist()
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
    n_pos = int(targets.pos.max()) + 1
    layers = targets.layer.tolist()
    rows = targets.covector.new_zeros(len(layers), sources.columns_below(layers[0]))
    covector = targets.covector.new_zeros(len(layers), n_pos, frozen.d_model)
    covector[torch.arange(len(layers), device=covector.device), targets.pos] = targets.covector
    for layer in reversed(range(min(layers[0] + 1, frozen.n_layers))):
        entering = sources.layers[layer]
        above = covector[: bisect_left(layers, -layer, key=lambda target: -target)]
        entering.tiles.read(above, rows)
        through_mlp = entering.linear.transpose(above) if entering.linear else None
        # Where attention and MLP read the same residual, targets of this layer join below both.
        at_layer = bisect_right(layers, -layer, key=lambda target: -target)
        joined = above if frozen.parallel else covector[:at_layer]
        if through_mlp is not None and not frozen.parallel:
            above += through_mlp
        if entering.attention_constant is not None:
            constant = entering.attention_constant[:n_pos].flatten()
            rows[: len(joined), entering.bias_column] += joined.flatten(1) @ constant
        if len(joined):
            attention.pull_back(layer, joined)
        if through_mlp is not None and frozen.parallel:
            above += through_mlp
    rows[:, :n_pos] = torch.einsum("tpd,pd->tp", covector, sources.tokens[:n_pos])
    if sources.positions is not None:
        first = len(sources.tokens)
        learned = torch.einsum("tpd,pd->tp", covector, sources.positions[:n_pos])
        rows[:, first : first + n_pos] = learned
    return rows
