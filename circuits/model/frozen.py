"""The frozen local replacement model: what is left of a model when nonlinearities are held fixed.

With attention patterns, norm denominators and MLP outputs held at the values of one prompt, a
block is linear in the residual stream x (position by position, except for the pattern):

    x_mid = x + post(W_O · pattern · W_V · norm(x)) + constant          attention
    x_out = x_mid + what the MLP added on this prompt                   features, error, bias

A norm with its denominator held is a linear map (LayerNorm: with centring) and a constant.
`FrozenBlock` holds the weights with the norms' gains folded in; what depends on the prompt is in
`circuits.recording.record`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from circuits.model.architectures import (
    Layout,
    affine,
    layout_of,
    optional_part,
    part,
    require_traceable,
    value_projection,
)
from circuits.model.prompt import PromptError
from graphs.errors import HeadwaterError


class DamagedWeights(HeadwaterError):
    """A weight of the model is NaN or infinite."""


@dataclass(frozen=True)
class Norm:
    """RMSNorm or LayerNorm, split into a denominator and the linear map that is left."""

    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]  # zero for RMSNorm
    centred: bool  # LayerNorm subtracts the mean
    eps: float

    def denominator(self, x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos"]:
        """Root mean square (LayerNorm: standard deviation) of each position."""
        centred = self.centre(x)
        return (centred.square().mean(-1) + self.eps).sqrt()

    def linear(
        self, x: Float[Tensor, "... d_model"], denominator: Float[Tensor, ...]
    ) -> Float[Tensor, "... d_model"]:
        """The norm without its bias, with the denominator held (one per position)."""
        return self.centre(x) / denominator[..., None] * self.gain

    def transpose(
        self, covector: Float[Tensor, "... d_model"], denominator: Float[Tensor, ...]
    ) -> Float[Tensor, "... d_model"]:
        """Transpose of `linear`."""
        return self.centre(covector * self.gain) / denominator[..., None]

    def centre(self, x: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_model"]:
        """Less its mean over d_model, for LayerNorm; centring is its own transpose."""
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True)
class FrozenBlock:
    """Weights of one block, prompt-independent."""

    attention_norm: Norm
    post_attention_norm: Norm | None
    mlp_norm: Norm
    post_mlp_norm: Norm | None
    output: Float[Tensor, "d_model heads"]  # W_O, rows scaled by the post-attention gain
    value: Float[Tensor, "kv_heads d_model"]  # W_V, columns scaled by the norm's gain and centred
    value_constant: Float[Tensor, " kv_heads"]  # value of a zero residual: norm bias and W_V bias
    output_constant: Float[Tensor, " d_model"]  # bias of W_O, scaled like its rows
    d_head: int


class FrozenModel:
    """A transformers model seen as linear maps.

    The model itself is untouched: `modules` are its own, weights here are copies with gains
    folded in.  Raises UnsupportedArchitecture for a class without a layout and for attention
    that is not causal, DamagedWeights for weights that are not finite.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layout: Layout = layout_of(model)
        self.config = model.config.get_text_config()
        require_traceable(self.config, model.dtype)
        self.modules = list(part(model, self.layout.blocks).children())
        head = model.get_output_embeddings()
        assert isinstance(head, nn.Module)
        weight, bias = affine(head)
        require_finite(weight, "unembedding")
        self.unembedding: Float[Tensor, "d_vocab d_model"] = weight
        self.unembedding_bias: Float[Tensor, " d_vocab"] | None = bias
        self.unembedding_mean: Float[Tensor, " d_model"] = weight.mean(0)
        self.softcap: float | None = self._told(self.layout.logit_softcap)
        self.parallel = bool(self._told(self.layout.parallel_flag))
        self.final_norm = self._norm(part(model, self.layout.final_norm))
        self.blocks = tuple(self._block(i, module) for i, module in enumerate(self.modules))
        # Of recorded logits from the model's own; the first recording in float64 measures it.
        self.recording_difference: float | None = None

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return self.unembedding.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.unembedding.dtype

    @property
    def device(self) -> torch.device:
        return self.unembedding.device

    @property
    def context_length(self) -> int | None:
        """Longest prompt in tokens; None if the config does not say."""
        return getattr(self.config, "max_position_embeddings", None)

    def require_embedded(self, ids: Int[Tensor, ...]) -> None:
        """Raises PromptError for a token that the model has no embedding of."""
        table = self.model.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        if int(ids.max()) >= len(table):
            raise PromptError(
                f"The tokenizer counts to {int(ids.max()):,} and the model knows tokens up to "
                f"{len(table) - 1:,}: the two are not of one model, get both from one place."
            )

    def logits(self, final: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_vocab"]:
        """Logits of a normalised residual, capped where the model caps them."""
        logits = final @ self.unembedding.T
        if self.unembedding_bias is not None:
            logits = logits + self.unembedding_bias
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def _told(self, field: str | None) -> Any:
        """What the config says in a field that the architecture reads; None if it reads none."""
        return None if field is None else getattr(self.config, field)

    def _norm(self, module: nn.Module) -> Norm:
        weight = module.weight
        assert isinstance(weight, Tensor)
        gain = weight.detach() + self.layout.gain_offset
        bias = getattr(module, "bias", None)
        eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
        return Norm(
            gain=gain,
            bias=torch.zeros_like(gain) if bias is None else bias.detach(),
            centred=isinstance(module, nn.LayerNorm),
            eps=float(eps),  # pyright: ignore[reportArgumentType]  # stubs say Module
        )

    def _optional_norm(self, block: nn.Module, path: str | None) -> Norm | None:
        module = optional_part(block, path)
        return None if module is None else self._norm(module)

    def _block(self, layer: int, block: nn.Module) -> FrozenBlock:
        attention = part(block, self.layout.attention)
        n_heads = self.config.num_attention_heads
        value, value_bias = value_projection(attention, self.layout, n_heads)
        output, output_bias = affine(part(attention, self.layout.output))
        for name, matrix in (("value", value), ("output", output)):
            require_finite(matrix, f"attention {name} matrix of layer {layer}")
        norm = self._norm(part(block, self.layout.attention_norm))
        post = self._optional_norm(block, self.layout.post_attention_norm)
        gain = torch.ones_like(output[:, 0]) if post is None else post.gain
        bias = torch.zeros_like(gain) if output_bias is None else output_bias
        return FrozenBlock(
            attention_norm=norm,
            post_attention_norm=post,
            mlp_norm=self._norm(part(block, self.layout.mlp_norm)),
            post_mlp_norm=self._optional_norm(block, self.layout.post_mlp_norm),
            output=(output * gain[:, None]).contiguous(),
            value=norm.centre(value * norm.gain).contiguous(),
            value_constant=value @ norm.bias + value_bias,
            output_constant=bias * gain,
            d_head=output.shape[1] // n_heads,
        )


def require_finite(weight: Tensor, name: str) -> None:
    """Raises DamagedWeights if a weight is NaN or infinite."""
    if not bool(torch.isfinite(weight).all()):
        raise DamagedWeights(
            f"The model's {name} holds NaN or infinite values: the weights are damaged, "
            "get them again."
        )
