from __future__ import annotations

import pytest
import torch
from torch import nn

from circuits.architectures import LAYOUTS, UnsupportedArchitecture, affine, layout_of
from circuits.frozen import FrozenModel
from circuits.recording import record
from circuits.subject import Subject
from tests.tiny import ARCHITECTURES, tiny_model, tiny_prompt


def test_every_layout_has_a_tiny_model():
    assert {name for name, _, _ in ARCHITECTURES.values()} == set(LAYOUTS)


def test_an_unknown_architecture_is_told_the_known_ones():
    with pytest.raises(
        UnsupportedArchitecture, match=r"'Linear'\. Known: GPT2LMHeadModel, GPTNeoX"
    ):
        layout_of(nn.Linear(1, 1))


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
