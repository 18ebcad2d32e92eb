from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from circuits.attribution.graph import replay
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sources import build_sources
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.model.architectures import LAYOUTS, UnsupportedArchitecture, affine, layout_of
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.recording.record import record
from tests.tiny import ARCHITECTURES, tiny_model, tiny_prompt, toy_dictionary

PAGE = (Path(__file__).parents[1] / "docs/architectures.md").read_text(encoding="utf-8")


def test_every_layout_has_a_tiny_model():
    assert {name for name, _, _ in ARCHITECTURES.values()} == set(LAYOUTS)


def test_the_page_of_architectures_lists_every_layout_and_no_other():
    supported, missing = PAGE.split("## Supported")[1].split("## Not supported")
    classes = re.compile(r"`(\w+For\w+|\w+LMHeadModel)`")
    listed = [classes.findall(line)[0] for line in supported.splitlines() if line.startswith("| `")]
    assert listed == sorted(LAYOUTS)
    others = classes.findall(missing)
    assert len(others) > 5
    assert not set(others) & set(LAYOUTS)
    assert {*listed, *others} <= set(dir(transformers))


def test_the_page_says_which_have_neurons():
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| `") and "transcoders |" in line
    ]
    neurons = {line.split("`")[1]: line.endswith("| neurons, transcoders |") for line in rows}
    assert neurons == {name: not layout.experts for name, layout in LAYOUTS.items()}


def test_an_unknown_architecture_is_told_the_known_ones():
    with pytest.raises(
        UnsupportedArchitecture, match=r"'Linear'\. Known: ApertusForCausalLM, Cohere2"
    ):
        layout_of(nn.Linear(1, 1))


@pytest.mark.parametrize("name", ["gemma-2", "gemma-3", "gemma-3-multimodal"])
def test_attention_to_later_tokens_is_refused(name: str):
    with pytest.raises(
        UnsupportedArchitecture,
        match="has use_bidirectional_attention: true, so its attention is not causal",
    ):
        FrozenModel(tiny_model(name, use_bidirectional_attention=True))


@pytest.mark.parametrize("value", [False, None])
def test_a_mask_that_is_not_causal_is_refused(subject: Subject, value: bool | None):
    """transformers reads this field in every architecture, and takes null for false."""
    model = tiny_model(subject.identity.name, is_causal=value)
    with torch.no_grad():
        early = [model(input_ids=torch.tensor([[1, 5, last]])).logits[0, 0] for last in (9, 14)]
    assert not torch.allclose(*early)
    with pytest.raises(
        UnsupportedArchitecture, match=f"is_causal: {'false' if value is False else 'null'}"
    ):
        FrozenModel(model)


def test_float32_attention_in_a_float64_model_is_refused():
    model = tiny_model("gpt-2", reorder_and_upcast_attn=True)
    with pytest.raises(UnsupportedArchitecture, match="choose another number type than float64"):
        FrozenModel(model)
    assert record(FrozenModel(model.float()), tiny_prompt()).logits.dtype == torch.float32


# Whatever of its config changes an architecture's forward pass, beside what its tiny model has.
FIELDS = [
    ("apertus", {"attention_bias": True, "hidden_act": "silu"}),
    ("cohere", {"use_qk_norm": False, "attention_bias": True}),
    ("ernie-4.5", {"use_bias": False}),
    ("exaone-4", {"layer_types": ["full_attention"] * 3, "sliding_window": None}),
    ("gemma", {"attention_bias": True}),
    ("gemma-2", {"attn_logit_softcapping": 0.5}),
    ("gemma-2", {"query_pre_attn_scalar": 2}),
    ("gemma-2", {"hidden_activation": "silu"}),
    ("gemma-3", {"attention_bias": True}),
    ("gemma-3", {"query_pre_attn_scalar": 2}),
    ("gpt-oss", {"swiglu_limit": 0.1, "swiglu_alpha": 0.3}),
    ("gpt-oss", {"attention_bias": False}),
    ("granite", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("helium", {"attention_bias": True, "mlp_bias": True}),
    ("hunyuan", {"attention_bias": True}),
    ("llama", {"mlp_bias": True}),
    ("llama", {"tie_word_embeddings": True, "hidden_act": "relu"}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}}),
    ("mixtral", {"sliding_window": 2, "num_experts_per_tok": 1}),
    ("olmo-2", {"attention_bias": True}),
    ("phi-3", {"sliding_window": 2, "partial_rotary_factor": 0.5}),
    ("qwen-2", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
    ("qwen-3", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 1}),
    ("qwen-3-moe", {"norm_topk_prob": True, "decoder_sparse_step": 2}),
    ("seed-oss", {"attention_out_bias": True, "mlp_bias": True}),
    ("smollm-3", {"attention_bias": True, "mlp_bias": True}),
    ("stablelm", {"use_qkv_bias": False, "qk_layernorm": True}),
    ("gpt-2", {"scale_attn_weights": False}),
    ("gpt-2", {"scale_attn_by_inverse_layer_idx": True}),
    ("gpt-2", {"add_cross_attention": True}),
    ("gpt-neox", {"attention_bias": False}),
    *((name, {"final_logit_softcapping": 2.0}) for name in ARCHITECTURES),
]


@pytest.mark.parametrize(("name", "told"), FIELDS)
def test_what_a_config_says_is_in_the_graph(name: str, told: dict[str, object]):
    model = tiny_model(name, **told)
    frozen, prompt = FrozenModel(model), tiny_prompt()
    recording = record(frozen, prompt)
    targets = read_targets(frozen, recording, TargetSettings(), str)
    features = toy_dictionary().activate(frozen, recording, targets.covectors)
    local = LocalReplacement(frozen, recording, features, targets)
    final = replay(local, build_sources(local))[-1]
    norm = frozen.final_norm
    final = norm.linear(final, recording.final_denominator[-1]) + norm.bias
    own = model(input_ids=torch.tensor([prompt.ids])).logits[0, -1]
    torch.testing.assert_close(frozen.logits(final), own, rtol=1e-5, atol=1e-5)


def test_conv1d_stores_its_weight_transposed():
    attention = tiny_model("gpt-2").transformer.h[0].attn
    weight, bias = affine(attention.c_attn)
    x = torch.randn(2, 16, dtype=torch.float64)
    torch.testing.assert_close(x @ weight.T + bias, attention.c_attn(x))


def test_the_model_is_left_as_it_was(subject: Subject):
    model = subject.frozen.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    record(FrozenModel(model), tiny_prompt())
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
