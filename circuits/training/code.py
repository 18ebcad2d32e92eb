"""The sparse code of a batch: a layer's features that may be active, token by token.

Of thousands of features some tens are active at a token, so encoders' gradients, decoders and their
gradients are computed for these entries alone:

    pre_e = encoder_f · input_t           at entry e = (token t, feature f)
    written_t = Σ_e value_e · decoder_f   over the entries of t

The products are those of an embedding bag: sums of rows of a table, with weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

aten = torch.ops.aten
SUM = 0  # mode of a bag


@dataclass(frozen=True)
class Code:
    """Entries of one layer, in the order of tokens."""

    feature: Int[Tensor, " entry"]
    token: Int[Tensor, " entry"]  # ascending
    start: Int[Tensor, " token"]  # each token's first entry

    @classmethod
    def of(cls, token: Tensor, feature: Tensor, n_tokens: int) -> Code:
        """Entries in the order of tokens, of which there are `n_tokens`."""
        tokens = torch.arange(n_tokens, device=token.device)
        return cls(feature, token, torch.searchsorted(token, tokens))

    def read(
        self, table: Float[Tensor, "feat d"], vectors: Float[Tensor, "token d"]
    ) -> Float[Tensor, " entry"]:
        """Products of each entry's row and its token's vector; the gradient is that of the rows."""
        return _Read.apply(table, vectors, self)  # pyright: ignore[reportReturnType]  # stubs say Any or None

    def written(
        self, table: Float[Tensor, "feat d"], values: Float[Tensor, " entry"]
    ) -> Float[Tensor, "token d"]:
        """Sum of the rows of each token's entries, times their values; without a gradient."""
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
        feature, order = self._by_feature
        rows = torch.arange(n_rows, device=feature.device)
        return torch.nn.functional.embedding_bag(
            self.token[order],
            vectors,
            torch.searchsorted(feature, rows),
            mode="sum",
            per_sample_weights=values.detach()[order],
        )

    @cached_property
    def _by_feature(self) -> tuple[Int[Tensor, " entry"], Int[Tensor, " entry"]]:
        """Features in ascending order, and the entries that have them."""
        return tuple(self.feature.sort(stable=True))


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, vectors: Tensor, code: Code) -> Tensor:
        ctx.save_for_backward(vectors)
        ctx.code, ctx.n_rows = code, len(table)
        return code.sampled(table, vectors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (vectors,) = ctx.saved_tensors
        return ctx.code.summed(vectors, grads[0].contiguous(), ctx.n_rows), None, None


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
