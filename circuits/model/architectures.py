"""Where each transformers class keeps what the linear view needs: one entry per architecture.

Paths are attribute paths, relative to the model for `blocks`, `embedding`, `final_norm`, to the
block for norms, `attention` and `mlp`, and to those for their matrices.  Checked against
transformers 5.4 to 5.23.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from graphs.errors import HeadwaterError

Rows = Callable[[Tensor, int], Tensor]


class UnsupportedArchitecture(HeadwaterError):
    """No layout is known for the model's class."""


def last_third(fused: Tensor, n_heads: int) -> Tensor:
    """Value rows of a matrix stored as all queries, all keys, all values (GPT-2)."""
    del n_heads
    return fused.chunk(3)[2]


def interleaved_values(fused: Tensor, n_heads: int) -> Tensor:
    """Value rows of a matrix stored head by head as query, key, value (GPT-NeoX)."""
    return fused.unflatten(0, (n_heads, 3, -1))[:, 2].flatten(0, 1)


@dataclass(frozen=True)
class Layout:
    """Attribute paths of one architecture; the defaults are Llama's."""

    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    position_embedding: str | None = None  # a learned one, added to the tokens
    final_norm: str = "model.norm"
    attention_norm: str = "input_layernorm"
    attention: str = "self_attn"
    value: str = "v_proj"
    value_rows: Rows | None = None  # picks the values out of a fused projection
    output: str = "o_proj"
    post_attention_norm: str | None = None  # on the attention's output, before it is added
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp"
    gate: str | None = "gate_proj"  # None: the MLP is not gated
    up: str = "up_proj"
    down: str = "down_proj"
    nonlinearity: str = "act_fn"
    post_mlp_norm: str | None = None
    gain_offset: float = 0.0  # what is added to a norm's stored weight
    experts: bool = False  # the MLP sends each token to some of many; it has no neurons to name
    parallel_flag: str | None = None  # config field: attention and MLP read the same residual
    logit_softcap: str | None = None  # config field: the class caps its logits by this tanh

    @property
    def mlp_contribution(self) -> str:
        """The module whose output is what the MLP adds to the residual stream."""
        return self.post_mlp_norm or self.mlp


LLAMA = Layout()
GEMMA = Layout(
    post_attention_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
    gain_offset=1.0,
    logit_softcap="final_logit_softcapping",
)
LAYOUTS: dict[str, Layout] = {
    "Gemma2ForCausalLM": GEMMA,
    "Gemma3ForCausalLM": GEMMA,
    "Gemma3ForConditionalGeneration": replace(
        GEMMA,
        blocks="model.language_model.layers",
        embedding="model.language_model.embed_tokens",
        final_norm="model.language_model.norm",
        logit_softcap=None,  # its text config has the field, its forward pass ignores it
    ),
    "GptOssForCausalLM": replace(LLAMA, experts=True),
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "GPT2LMHeadModel": Layout(
        blocks="transformer.h",
        embedding="transformer.wte",
        position_embedding="transformer.wpe",
        final_norm="transformer.ln_f",
        attention_norm="ln_1",
        attention="attn",
        value="c_attn",
        value_rows=last_third,
        output="c_proj",
        mlp_norm="ln_2",
        gate=None,
        up="c_fc",
        down="c_proj",
        nonlinearity="act",
    ),
    "GPTNeoXForCausalLM": Layout(
        blocks="gpt_neox.layers",
        embedding="gpt_neox.embed_in",
        final_norm="gpt_neox.final_layer_norm",
        attention="attention",
        value="query_key_value",
        value_rows=interleaved_values,
        output="dense",
        gate=None,
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        nonlinearity="act",
        parallel_flag="use_parallel_residual",
    ),
}


# Fields of any class's config, and what they must be for tokens to see only those before them.
CAUSAL = {"use_bidirectional_attention": False, "is_causal": True}


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model's class.  Raises UnsupportedArchitecture that lists the known ones."""
    name = type(model).__name__
    if name not in LAYOUTS:
        raise UnsupportedArchitecture(
            f"No layout is known for {name!r}. Known: {', '.join(sorted(LAYOUTS))}. "
            "Add one entry to circuits/model/architectures.py (about a dozen lines)."
        )
    return LAYOUTS[name]


def require_traceable(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """Raises UnsupportedArchitecture for what any class does when its config says so."""
    for field, needed in CAUSAL.items():
        value = getattr(config, field, needed)
        if bool(value) != needed:
            raise UnsupportedArchitecture(
                f"The model's config has {field}: {json.dumps(value)}, so its tokens see those "
                "behind them: choose a causal model, whose tokens see earlier ones alone."
            )
    if getattr(config, "reorder_and_upcast_attn", False) and dtype == torch.float64:
        raise UnsupportedArchitecture(
            "The model's config has reorder_and_upcast_attn: true, whose attention is float32 "
            "whatever the model is: choose another number type than float64."
        )


def part(module: nn.Module, path: str) -> nn.Module:
    """The submodule at an attribute path."""
    return reduce(getattr, path.split("."), module)


def optional_part(module: nn.Module, path: str | None) -> nn.Module | None:
    """The submodule at an attribute path, None where the architecture has none."""
    return None if path is None else part(module, path)


def affine(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight with shape (out, in) and bias of a linear layer; Conv1D stores (in, out)."""
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    transposed = type(module).__name__ == "Conv1D"
    return (weight.T if transposed else weight).detach(), None if bias is None else bias.detach()


def value_projection(attention: nn.Module, layout: Layout, n_heads: int) -> tuple[Tensor, Tensor]:
    """Value matrix (kv head * d_head, d_model) and its bias, zero where there is none."""
    weight, bias = affine(part(attention, layout.value))
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias
    if layout.value_rows is None:
        return weight, bias
    return layout.value_rows(weight, n_heads), layout.value_rows(bias, n_heads)
