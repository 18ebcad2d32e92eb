"""Frozen attention of every layer on one prompt, as a linear map in both directions.

With norm gains folded into W_O and W_V and the norms' scales into the pattern, a layer is

    pull back      c[k]    += Σ_heads Σ_q pattern[h, q, k] · (c[q] · W_O[h]) · W_V[h]
    push forward   added[q] = Σ_heads Σ_k pattern[h, q, k] · W_O[h] · (W_V[h] · x[k])

one matrix product per kv head, a batched product with the pattern, and one product back.
In `Attention`, positions count from the first that is swept.  Those before it are prefix positions
(`circuits.attribution.sources`), which swept positions read through their values only.

On CUDA, tensor cores multiply float32 numbers of which they read 10 bits (TF32).  A split product
is as exact as float32: with x = high + low, each of 10 bits,

    x · W ≈ high · W_high + high · W_low + low · W_high
          = [high | high | low] · [W_high; W_low; W_high]

so three times as many multiplications are one product of tensor cores.  Products with W_O and W_V,
nine tenths of a sweep, are made so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.machine import float32_products, gathered, is_accelerator
from circuits.model.frozen import FrozenBlock, FrozenModel
from circuits.recording.precision import Precision
from circuits.recording.record import BlockRecording, Recording
from graphs.errors import HeadwaterError

CACHE_POSITIONS = 2048  # positions per chunk: enough for a fast product, few enough for the cache
KEY_CHUNK = 64  # keys mixed at once; earlier queries do not attend to them
TENSOR_CORES = {"cuda"}  # types of devices with TF32
KEPT_BITS, HALF = ~0x1FFF, 0x1000  # of a float32's bits: those that TF32 reads, and their rounding


class PrecisionError(HeadwaterError):
    """A precision that the model's device or type of numbers does not have."""


def require_precision(frozen: FrozenModel, precision: Precision) -> None:
    """Raises PrecisionError for TF32 elsewhere than in float32 on CUDA."""
    cores = all(device.type in TENSOR_CORES for device in frozen.devices)
    has_tf32 = cores and frozen.dtype == torch.float32
    if precision != Precision.IEEE and not has_tf32:
        raise PrecisionError(
            f"The precision {precision} is for models in float32 on a CUDA GPU, this one is in "
            f"{str(frozen.dtype).removeprefix('torch.')} on {', '.join(map(str, frozen.devices))}: "
            "leave out --precision."
        )


@dataclass(frozen=True)
class Factor:
    """A matrix on the right of many products."""

    matrix: Float[Tensor, "inner outer"]
    parts: Float[Tensor, "three_inner outer"] | None  # high, low, high; None: not split

    @staticmethod
    def of(matrix: Float[Tensor, "inner outer"], precision: Precision) -> Factor:
        if precision != Precision.SPLIT:
            return Factor(matrix, None)
        high, low = _split(matrix)
        return Factor(matrix, torch.cat([high, low, high]))

    def product(self, left: Float[Tensor, "row inner"]) -> Float[Tensor, "row outer"]:
        """left · matrix."""
        if self.parts is None:
            return left @ self.matrix
        with float32_products(tensor_cores=True):
            return _parts(left) @ self.parts

    def add_product(
        self, total: Float[Tensor, "row outer"], left: Float[Tensor, "row inner"]
    ) -> None:
        """total += left · matrix, in place."""
        if self.parts is None:
            total.addmm_(left, self.matrix)
            return
        with float32_products(tensor_cores=True):
            total.addmm_(_parts(left), self.parts)


def _split(x: Float[Tensor, "*any"]) -> tuple[Float[Tensor, "*any"], Float[Tensor, "*any"]]:
    """The part of each number that TF32 reads, and the rest."""
    bits = x.contiguous().view(torch.int32)
    high = (bits + HALF).bitwise_and_(KEPT_BITS).view(torch.float32)
    return high, x - high


def _parts(left: Float[Tensor, "row inner"]) -> Float[Tensor, "row three_inner"]:
    high, low = _split(left)
    return torch.cat([high, high, low], 1)


def mixed(
    pattern: Float[Tensor, "head query key"],
    values: Float[Tensor, "*part key kv_heads"],
    d_head: int,
) -> Float[Tensor, "*part query heads"]:
    """Values mixed by the patterns of the query heads that share them: Σ_k pattern[q, k] · v[k]."""
    per_head = values.unflatten(-1, (-1, d_head))
    per_head = per_head.repeat_interleave(len(pattern) // per_head.shape[-2], -2)
    return torch.einsum("hqk,...khd->...qhd", pattern, per_head).flatten(-2)


def attended(
    block: FrozenBlock, recorded: BlockRecording, values: Float[Tensor, "*part key kv_heads"]
) -> Float[Tensor, "*part key d_model"]:
    """What attention adds at the first positions, given its values there, without constants."""
    n_pos = values.shape[-2]
    heads = mixed(recorded.pattern[:, :n_pos, :n_pos], values, block.d_head)
    return (heads @ block.output.T) / recorded.post_attention_denominator[:n_pos, None]


def attention_constant(
    block: FrozenBlock, recorded: BlockRecording
) -> Float[Tensor, "pos d_model"]:
    """What attention adds to a zero residual stream."""
    if not block.biased:
        return torch.zeros_like(recorded.contribution)
    values = block.value_constant.expand(len(recorded.contribution), -1)
    return attended(block, recorded, values) + output_bias(block, recorded)


def output_bias(block: FrozenBlock, recorded: BlockRecording) -> Float[Tensor, "pos d_model"]:
    """What the bias of W_O adds."""
    return block.output_constant / recorded.post_attention_denominator[:, None]


def value_bias(block: FrozenBlock, recorded: BlockRecording) -> Float[Tensor, "pos kv_heads"]:
    """Values of a zero residual, to be mixed by a pattern as it is kept.

    Such a pattern divides by what the norm does, and biases of values are behind that.
    """
    return block.value_constant * recorded.attention_denominator[:, None]


def head_values(
    block: FrozenBlock, recorded: BlockRecording, entering: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "kv_head pos d_head"]:
    """Values of the residual that enters, to be mixed by a pattern as it is kept."""
    values = entering @ block.value.T + value_bias(block, recorded)
    return values.unflatten(1, (block.n_kv_heads, -1)).transpose(0, 1)


def head_mixed(
    recorded: BlockRecording, values: Float[Tensor, "kv_head pos d_head"]
) -> Float[Tensor, "head pos d_head"]:
    """What each head mixes of these values."""
    mixing = recorded.mixing.unflatten(2, (values.shape[1], -1))
    return torch.einsum("vkqg,vkd->vgqd", mixing, values).flatten(0, 1)


def head_outputs(
    block: FrozenBlock, recorded: BlockRecording, entering: Float[Tensor, "pos d_model"]
) -> Float[Tensor, "head pos d_model"]:
    """What each head adds, given the residual that enters; without the bias of W_O."""
    heads = head_mixed(recorded, head_values(block, recorded, entering))
    output = block.output.unflatten(1, (-1, block.d_head))
    return torch.einsum("hqe,dhe->hqd", heads, output)


def attended_transposed(
    block: FrozenBlock, recorded: BlockRecording, covector: Float[Tensor, "row pos d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """Covectors on what attention adds, as covectors on the residual that it reads."""
    heads = (covector / recorded.post_attention_denominator[:, None]) @ block.output
    heads = heads.unflatten(2, (-1, block.d_head))
    values = torch.einsum("hqk,tqhd->tkhd", recorded.pattern, heads)
    values = values.unflatten(2, (block.n_kv_heads, -1)).sum(3).flatten(2)  # one per kv head
    return (values @ block.value) / recorded.attention_denominator[:, None]


class Attention:
    """Frozen attention of every layer on one prompt, from position `first` on.

    Each layer's is where its block lies, and so is what it is given and gives back.
    """

    def __init__(
        self,
        frozen: FrozenModel,
        recording: Recording,
        first: int = 0,
        precision: Precision = Precision.IEEE,
    ) -> None:
        self.first, self.d_head = first, frozen.blocks[0].d_head
        self.precision = precision
        self.output: list[list[Factor]] = []  # per layer and kv head (d_model, group * d_head)
        self.value: list[list[Factor]] = []  # per layer and kv head (d_head, d_model)
        self.mixing: list[Tensor] = []  # per layer (kv_head, key, query * group), query from first
        ends: list[Tensor] = []  # by layer, the last queries
        for block, recorded in zip(frozen.blocks, recording.blocks, strict=True):
            value = block.value.unflatten(0, (-1, block.d_head))
            output = block.output.unflatten(1, (len(value), -1)).transpose(0, 1).contiguous()
            self.output.append([Factor.of(matrix, precision) for matrix in output])
            self.value.append([Factor.of(matrix, precision) for matrix in value])
            group = output.shape[2] // block.d_head
            self.mixing.append(recorded.mixing[:, :, first * group :])
            last = _last_queries(self.mixing[-1][:, first:].unflatten(2, (-1, group)))
            ends.append(last[None])
        self.last_query: list[list[int]] = gathered(ends, frozen.device).tolist()

    def pull_back(
        self,
        layer: int,
        covector: Float[Tensor, "row pos d_model"],
        pos: Int[Tensor, " row"],
        crossed: int,
    ) -> Float[Tensor, "row prefix kv_heads"]:
        """Pull covectors back through a layer's attention and add the result to them, in place.

        Positions count from `first`.  Rows from `crossed` on are nonzero only at their own `pos`.
        Returns covectors on the values of the positions before `first`.
        """
        if is_accelerator(covector.device):
            # One launch for all is worth more than fewer products.
            return self._pull_back(layer, covector, pos, len(covector))
        n_chunks = -(-covector.shape[0] * covector.shape[1] // CACHE_POSITIONS)
        step = -(-len(covector) // n_chunks)  # chunks of equal size: a small last one is slow
        prefix = [
            self._pull_back(
                layer, covector[i : i + step], pos[i : i + step], min(max(crossed - i, 0), step)
            )
            for i in range(0, len(covector), step)
        ]
        return torch.cat(prefix)

    def mixing_of(self, layer: int, n_pos: int) -> Float[Tensor, "kv_head key query group"]:
        """A layer's patterns by head, of the first positions; all must be swept."""
        mixing = self.mixing[layer]
        return mixing.unflatten(2, (mixing.shape[1], -1))[:, :n_pos, :n_pos]

    def above_heads(
        self, layer: int, covector: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "kv_head row pos group d_head"]:
        """Covectors above a layer's attention, as covectors on what its heads mix."""
        n_rows, n_pos, d_model = covector.shape
        flat = covector.reshape(-1, d_model)
        heads = torch.stack([output.product(flat) for output in self.output[layer]])
        return heads.view(len(heads), n_rows, n_pos, -1, self.d_head)

    def push_forward(
        self,
        layer: int,
        residual: Float[Tensor, "component pos d_model"],
        prefix: Float[Tensor, "component prefix kv_heads"] | None = None,
    ) -> Float[Tensor, "component pos d_model"]:
        """What a layer's attention adds to the last positions, given the residual at these.

        `prefix` has the values of the positions before `first`; with it, the residual must cover
        all positions from there on.
        """
        n_components, n_pos, _ = residual.shape
        added = torch.zeros_like(residual)
        flat = added.view(-1, added.shape[2])
        for head, (mixing, output, value) in enumerate(
            zip(self.mixing[layer], self.output[layer], self.value[layer], strict=True)
        ):
            values = residual @ value.matrix.T
            if prefix is not None:
                own = prefix.unflatten(2, (-1, self.d_head))[:, :, head]
                values = torch.cat([own, values], 1)
            group = output.matrix.shape[1] // self.d_head
            pattern = mixing[len(mixing) - values.shape[1] :, mixing.shape[1] - n_pos * group :]
            heads = torch.bmm(pattern.T.expand(n_components, -1, -1), values)
            flat.addmm_(heads.view(len(flat), -1), output.matrix.T)
        return added

    def _pull_back(
        self, layer: int, covector: Tensor, pos: Int[Tensor, " row"], crossed: int
    ) -> Float[Tensor, "row prefix kv_heads"]:
        n_rows, n_pos, d_model = covector.shape
        d_head, own = self.d_head, None
        if crossed < n_rows:
            own = covector[torch.arange(crossed, n_rows, device=pos.device), pos[crossed:]]
        n_kv = len(self.mixing[layer])
        swept = covector.new_empty(n_kv, n_rows, n_pos, d_head)
        prefix = covector.new_empty(n_kv, n_rows, self.first, d_head)
        for mixing, output, below, before in zip(
            self.mixing[layer], self.output[layer], swept, prefix, strict=True
        ):
            group = output.matrix.shape[1] // d_head
            heads = output.product(covector[:crossed].view(-1, d_model))
            heads = heads.view(crossed, n_pos * group, d_head)
            self._mix(layer, mixing[self.first :], heads, below[:crossed])
            if self.first:
                at_prefix = mixing[: self.first, : n_pos * group].expand(crossed, -1, -1)
                torch.bmm(at_prefix, heads, out=before[:crossed])
            if own is not None:
                own_query = mixing.view(len(mixing), -1, group)[: self.first + n_pos, pos[crossed:]]
                own_query = own_query.transpose(0, 1)
                own_heads = output.product(own).view(len(own), group, d_head)
                torch.bmm(own_query[:, self.first :], own_heads, out=below[crossed:])
                if self.first:
                    torch.bmm(own_query[:, : self.first], own_heads, out=before[crossed:])
        flat = covector.view(-1, d_model)
        for below, value in zip(swept, self.value[layer], strict=True):
            value.add_product(flat, below.view(-1, d_head))
        return prefix.permute(1, 2, 0, 3).flatten(2)

    def _mix(
        self,
        layer: int,
        mixing: Float[Tensor, "key queries"],
        heads: Float[Tensor, "active some_queries d_head"],
        below: Float[Tensor, "active pos d_head"],
    ) -> None:
        """Pattern · heads into `below`, per chunk of keys, over the queries that attend to it."""
        n_rows, n_queries, _ = heads.shape
        n_pos = below.shape[1]
        group = n_queries // n_pos
        for chunk, start in enumerate(range(0, n_pos, KEY_CHUNK)):
            keys = slice(start, min(start + KEY_CHUNK, n_pos))
            end = min((self.last_query[layer][chunk] + 1) * group, n_queries)
            part = mixing[keys, start * group : end].expand(n_rows, -1, -1)
            # A contiguous result, as of a single chunk, lets the product run as one batch.
            torch.bmm(part, heads[:, start * group : end], out=below[:, keys])


def _last_queries(
    mixing: Float[Tensor, "kv_head key query group"],
) -> Int[Tensor, " chunk"]:
    """Per chunk of keys, the last query that attends to any of them (sliding windows end)."""
    attends = mixing.amax((0, 3)).T > 0
    chunks = torch.nn.functional.pad(attends, (0, -attends.shape[1] % KEY_CHUNK))
    any_key = chunks.unflatten(1, (-1, KEY_CHUNK)).any(2)  # (query, chunk)
    query = torch.arange(len(attends), device=attends.device)
    starts = torch.arange(0, attends.shape[1], KEY_CHUNK, device=attends.device)
    # A chunk that nothing attends to ends where it starts.
    return torch.where(any_key, query[:, None], starts).amax(0)
