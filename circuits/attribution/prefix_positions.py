"""Context-only positions, pushed forward once.

Such positions come first, so by causality they hear only each other, and they hold no features:
their residual stream is a fixed sum of components, one per token and one per layer's constants.
Later positions hear them through attention alone.  So the sweep stops at their values,

    weight of a component = Σ_layer Σ_pos c[pos] · value(component)[layer, pos]

with c the covector on the values, and carries nothing through their own layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.model.frozen import FrozenModel
from circuits.recording.attention import attended
from circuits.recording.record import Recording


@dataclass(frozen=True)
class Context:
    """Components of the context-only positions' residual, as values of every layer's attention."""

    column: Int[Tensor, " component"]
    values: tuple[Float[Tensor, "context_values component"], ...]  # per layer, (pos, kv head) flat

    def read(
        self,
        layer: int,
        covector: Float[Tensor, "active context kv_heads"],
        rows: Float[Tensor, "row column"],
    ) -> None:
        """Add covector · value to the columns of all components."""
        if len(self.column):
            weights = covector.flatten(1) @ self.values[layer]
            rows[: len(covector)].index_add_(1, self.column, weights)


def push_forward(
    frozen: FrozenModel,
    recording: Recording,
    first: int,
    attention_constants: list[Tensor],
    bias_column: int,
) -> Context:
    """The context of the positions before `first`; components: tokens, positions, biases."""
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
    for layer, (block, seen) in enumerate(zip(frozen.blocks, recording.blocks, strict=True)):
        value = residual @ block.value.T
        values.append(value.flatten(1).T.contiguous())
        residual = residual + attended(
            block, seen, value / seen.attention_denominator[:first, None]
        )
        constant = attention_constants[layer][:first] + seen.contribution[:first]
        residual[len(inputs) * first + layer] += constant
    return Context(column=torch.cat(columns), values=tuple(values))
