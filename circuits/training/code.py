"""The sparse code of a batch: a layer's features that may be active, token by token.

Of thousands of features some tens are active at a token, so encoders' gradients, decoders and their
gradients are computed for these entries alone:

    pre_e = encoder_f · input_t           at entry e = (token t, feature f)
    written_t = Σ_e value_e · decoder_f   over the entries of t

The products are those of an embedding bag: sums of rows of a table, with weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

aten = torch.ops.aten
SUM = 0  # mode of a bag


@dataclass(frozen=True)
class Turned:
    """Entries of one layer, in the order of rows."""

    order: Int[Tensor, " entry"]  # their places in the order of tokens
    token: Int[Tensor, " entry"]
    start: Int[Tensor, " row"]  # each row's first entry


@dataclass(frozen=True)
class Code:
    """Entries of one layer, in the order of tokens."""

    feature: Int[Tensor, " entry"]
    token: Int[Tensor, " entry"]  # ascending
    start: Int[Tensor, " token"]  # each token's first entry
    turned: dict[int, Turned] = field(default_factory=dict[int, Turned], repr=False)  # by rows

    @classmethod
    def of(cls, token: Tensor, feature: Tensor, n_tokens: int) -> Code:
        """Entries in the order of tokens, of which there are `n_tokens`."""
        tokens = torch.arange(n_tokens, device=token.device)
        return cls(feature, token, torch.searchsorted(token, tokens))

    def beside(self, other: Code) -> Code:
        """The entries of both; the other's are at tokens of their own, behind these."""
        return Code(
            torch.cat([self.feature, other.feature]),
            torch.cat([self.token, other.token + len(self.start)]),
            torch.cat([self.start, other.start + len(self.feature)]),
        )

    def read(
        self,
        table: Float[Tensor, "feat d"],
        vectors: Float[Tensor, "token d"],
        bias: Float[Tensor, " feat"],
    ) -> Float[Tensor, " entry"]:
        """Products of each entry's row and its token's vector, and the row's bias."""
        return _Read.apply(table, vectors, bias, self)  # pyright: ignore[reportReturnType]  # stubs say Any or None

    def written(
        self, table: Float[Tensor, "feat d"], values: Float[Tensor, " entry"]
    ) -> Float[Tensor, "token d"]:
        """Sum of the rows of each token's entries, times their values."""
        return torch.nn.functional.embedding_bag(
            self.feature, table, self.start, mode="sum", per_sample_weights=values
        )

    def sampled(
        self, table: Float[Tensor, "feat d"], vectors: Float[Tensor, "token d"]
    ) -> Float[Tensor, " entry"]:
        """As `read`, without a gradient."""
        return aten._embedding_bag_per_sample_weights_backward(
            vectors, table, self.feature, self.start, self.token, SUM
        )

    def summed(
        self, vectors: Float[Tensor, "token d"], values: Float[Tensor, " entry"], n_rows: int
    ) -> Float[Tensor, "feat d"]:
        """Each row's sum of its entries' vectors, times their values: the gradient of a table.

        A bag of vectors per row, which is written once; torch's own gradient of a bag fills the
        table with zeros twice, and sums in parts that it writes and reads.
        """
        if n_rows not in self.turned:
            turn((self,), n_rows)
        turned = self.turned[n_rows]
        return torch.nn.functional.embedding_bag(
            turned.token, vectors, turned.start, mode="sum", per_sample_weights=values[turned.order]
        )


def turn(codes: Sequence[Code], n_rows: int) -> None:
    """Sort the entries of all layers by row, together: a sort is many launches on a device."""
    keys = torch.cat([code.feature + layer * n_rows for layer, code in enumerate(codes)])
    keys, order = keys.sort(stable=True)
    start = torch.searchsorted(keys, torch.arange(len(codes) * n_rows, device=keys.device))
    token = torch.cat([code.token for code in codes])[order]
    first = 0
    for layer, code in enumerate(codes):
        own = slice(first, first + len(code.feature))
        rows = slice(layer * n_rows, (layer + 1) * n_rows)
        code.turned[n_rows] = Turned(order[own] - first, token[own], start[rows] - first)
        first = own.stop


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, vectors: Tensor, bias: Tensor, code: Code) -> Tensor:
        ctx.save_for_backward(table, vectors)
        ctx.code = code
        return code.sampled(table, vectors) + bias[code.feature]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None]:
        table, vectors = ctx.saved_tensors
        code, grad = ctx.code, grads[0].contiguous()
        of_table = code.summed(vectors, grad, len(table))
        of_vectors = code.written(table, grad) if ctx.needs_input_grad[1] else None
        of_bias = code.summed(torch.ones_like(vectors[:, :1]), grad, len(table))[:, 0]
        return of_table, of_vectors, of_bias, None


class _Written(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, codes: tuple[Code, ...], *tensors: Tensor) -> Tensor:
        values, decoders = tensors[: len(codes)], tensors[len(codes) :]
        ctx.save_for_backward(*tensors)
        ctx.codes = codes
        n_tokens, d_model = len(codes[0].start), decoders[-1].shape[2]
        written = values[0].new_zeros(len(codes), n_tokens, d_model)
        for layer, (code, value, decoder) in enumerate(zip(codes, values, decoders, strict=True)):
            to = slice(layer, layer + decoder.shape[1])
            sums = code.written(decoder.flatten(1), value)
            written[to] += sums.unflatten(1, decoder.shape[1:]).transpose(0, 1)
        return written

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        codes, tensors = ctx.codes, ctx.saved_tensors
        of_values, of_decoders = list[Tensor](), list[Tensor]()
        turn(codes, len(tensors[-1]))
        for layer, code in enumerate(codes):
            value, decoder = tensors[layer], tensors[len(codes) + layer]
            to = slice(layer, layer + decoder.shape[1])
            vectors = grads[0][to].transpose(0, 1).flatten(1).contiguous()
            of_values.append(code.sampled(decoder.flatten(1), vectors))
            of_decoders.append(code.summed(vectors, value, len(decoder)).view_as(decoder))
        return None, *of_values, *of_decoders


def written_by_all(
    codes: tuple[Code, ...],
    values: list[Tensor],  # (entry,) of each code
    decoders: list[Tensor],  # (feat, written layer, d_model) of each layer
) -> Float[Tensor, "layer token d_model"]:
    """What the entries of all layers write: those of layer l to l, l + 1, … by its decoder."""
    return _Written.apply(codes, *values, *decoders)  # pyright: ignore[reportReturnType]
