"""Where each transformers class keeps the weights of the frozen model: one entry per architecture.

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

FusedRows = Callable[[Tensor, int, int], Tensor]  # of a fused matrix, its heads and their width


class UnsupportedArchitecture(HeadwaterError):
    """No layout is known for the model's class."""


def stacked_values(fused: Tensor, n_heads: int, d_head: int) -> Tensor:
    """Value rows of a matrix stored as all queries, all keys, all values (GPT-2, Phi-3)."""
    return fused[n_heads * d_head :].chunk(2)[1]


def interleaved_values(fused: Tensor, n_heads: int, d_head: int) -> Tensor:
    """Value rows of a matrix stored head by head as query, key, value (GPT-NeoX)."""
    return fused.unflatten(0, (n_heads, 3, d_head))[:, 2].flatten(0, 1)


@dataclass(frozen=True)
class Layout:
    """Attribute paths of one architecture; the defaults are Llama's."""

    blocks: str = "model.layers"
    embedding: str = "model.embed_tokens"
    position_embedding: str | None = None  # a learned one, added to the tokens
    final_norm: str = "model.norm"
    attention_norm: str | None = "input_layernorm"  # None: attention reads the residual itself
    attention: str = "self_attn"
    value: str = "v_proj"
    value_rows: FusedRows | None = None  # picks the values out of a fused projection
    output: str = "o_proj"
    post_attention_norm: str | None = None  # on the attention's output, before it is added
    mlp_norm: str | None = "post_attention_layernorm"  # None: the MLP reads the residual itself
    mlp: str = "mlp"
    gate: str | None = "gate_proj"  # None: not gated; the same as `up`: one matrix, gates first
    up: str = "up_proj"
    down: str = "down_proj"
    nonlinearity: str = "act_fn"
    post_mlp_norm: str | None = None
    centred: bool = False  # norms subtract the mean (LayerNorm)
    gain_offset: float = 0.0  # what is added to a norm's stored weight
    experts: bool = False  # the MLP is a mixture of experts, whose neurons differ per token
    parallel: bool | str = False  # attention and MLP read the same residual, or a config field
    one_norm: bool = False  # where they do, they read it through the attention's norm
    residual_multiplier: str | None = None  # config field: multiplies what attention and MLPs add
    logit_multiplier: str | None = None  # config field: logits are multiplied by it
    logit_divisor: str | None = None  # config field: logits are divided by it
    logit_softcap: str | None = None  # config field: logits are capped at this by a tanh


LLAMA = Layout()
GEMMA = Layout(
    post_attention_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    post_mlp_norm="post_feedforward_layernorm",
    gain_offset=1.0,
    logit_softcap="final_logit_softcapping",
)
POST_NORMS = Layout(
    attention_norm=None,
    post_attention_norm="post_attention_layernorm",
    mlp_norm=None,
    post_mlp_norm="post_feedforward_layernorm",
)
COHERE = Layout(centred=True, parallel=True, one_norm=True, logit_multiplier="logit_scale")
LAYOUTS: dict[str, Layout] = {
    "ApertusForCausalLM": Layout(
        attention_norm="attention_layernorm", mlp_norm="feedforward_layernorm", gate=None
    ),
    "Cohere2ForCausalLM": COHERE,
    "CohereForCausalLM": COHERE,
    "Ernie4_5ForCausalLM": LLAMA,
    "Exaone4ForCausalLM": POST_NORMS,
    "GemmaForCausalLM": replace(LLAMA, gain_offset=1.0),
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
    "GraniteForCausalLM": replace(
        LLAMA, residual_multiplier="residual_multiplier", logit_divisor="logits_scaling"
    ),
    "HeliumForCausalLM": LLAMA,
    "HunYuanDenseV1ForCausalLM": LLAMA,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "MixtralForCausalLM": replace(LLAMA, experts=True),
    "Olmo2ForCausalLM": POST_NORMS,
    "Olmo3ForCausalLM": POST_NORMS,
    "Phi3ForCausalLM": replace(
        LLAMA,
        value="qkv_proj",
        value_rows=stacked_values,
        gate="gate_up_proj",
        up="gate_up_proj",
        nonlinearity="activation_fn",
    ),
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "Qwen3MoeForCausalLM": replace(LLAMA, experts=True),
    "SeedOssForCausalLM": LLAMA,
    "SmolLM3ForCausalLM": LLAMA,
    "StableLmForCausalLM": replace(
        LLAMA, centred=True, parallel="use_parallel_residual", one_norm=True
    ),
    "GPT2LMHeadModel": Layout(
        blocks="transformer.h",
        embedding="transformer.wte",
        position_embedding="transformer.wpe",
        final_norm="transformer.ln_f",
        attention_norm="ln_1",
        attention="attn",
        value="c_attn",
        value_rows=stacked_values,
        output="c_proj",
        mlp_norm="ln_2",
        gate=None,
        up="c_fc",
        down="c_proj",
        nonlinearity="act",
        centred=True,
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
        centred=True,
        parallel="use_parallel_residual",
    ),
}


# Config fields of any class, and the values for which attention is causal.
CAUSAL = {"use_bidirectional_attention": False, "is_causal": True}


def layout_of(model: nn.Module) -> Layout:
    """The layout of a model's class, with what its config says of norms and parallel blocks.

    Raises UnsupportedArchitecture that lists the known ones.
    """
    name = type(model).__name__
    if name not in LAYOUTS:
        raise UnsupportedArchitecture(
            f"No layout is known for {name!r}. Known: {', '.join(sorted(LAYOUTS))}. "
            "Add one entry to circuits/model/architectures.py (about a dozen lines)."
        )
    layout = LAYOUTS[name]
    parallel = layout.parallel
    if isinstance(parallel, str):
        parallel = bool(getattr(model.config, parallel))
    shared = parallel and layout.one_norm
    mlp_norm = layout.attention_norm if shared else layout.mlp_norm
    return replace(layout, parallel=parallel, mlp_norm=mlp_norm)


def require_traceable(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """Raises UnsupportedArchitecture for config options that the frozen model does not support."""
    for field, needed in CAUSAL.items():
        value = getattr(config, field, needed)
        if bool(value) != needed:
            raise UnsupportedArchitecture(
                f"The model's config has {field}: {json.dumps(value)}, so its attention is not "
                "causal: choose a model whose tokens attend to earlier tokens only."
            )
    if getattr(config, "reorder_and_upcast_attn", False) and dtype == torch.float64:
        raise UnsupportedArchitecture(
            "The model's config has reorder_and_upcast_attn: true, which computes attention in "
            "float32: choose another number type than float64."
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
    output, _ = affine(part(attention, layout.output))
    d_head = output.shape[1] // n_heads
    return layout.value_rows(weight, n_heads, d_head), layout.value_rows(bias, n_heads, d_head)
