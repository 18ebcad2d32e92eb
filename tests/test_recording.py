from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from circuits import trace
from circuits.attribution.graph import replay_difference
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.sources import build_sources
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.neurons import Neurons
from circuits.model.frozen import DamagedWeights, FrozenModel
from circuits.model.prompt import PromptError
from circuits.model.subject import Subject
from circuits.recording.record import record
from tests.conftest import cached_subject
from tests.tiny import tiny_model, tiny_prompt, toy_dictionary, toy_tokenizer
from tests.tolerances import EXACT, FLOAT32


def test_one_pass_gives_the_models_own_logits(subject: Subject):
    prompt = tiny_prompt()
    recording = record(subject.frozen, prompt)
    own = subject.frozen.model(torch.tensor([prompt.ids])).logits[0, -1]
    # The model computes norms in float32 on its own; the recording does not.
    torch.testing.assert_close(recording.logits, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", [0, 2, -1])
def test_logits_are_kept_at_the_position_asked_for(gemma: Subject, position: int):
    prompt = tiny_prompt()
    own = gemma.frozen.model(torch.tensor([prompt.ids])).logits[0, position]
    recording = record(gemma.frozen, prompt, position)
    torch.testing.assert_close(recording.logits, own, rtol=1e-5, atol=1e-5)
    assert recording.position == position % len(prompt)


def test_replayed_logits_are_the_models_own(subject: Subject):
    dictionary = toy_dictionary(cross_layer=True, skip=True)
    local = local_replacement(tiny_prompt(), subject, dictionary, TargetSettings())
    assert replay_difference(local, build_sources(local)) < 1e-12


def test_replay_notices_a_source_that_is_missing(gemma: Subject):
    local = local_replacement(tiny_prompt(), gemma, toy_dictionary(), TargetSettings())
    sources = build_sources(local)
    sources.layers[1].tiles.vectors[2, 0] = 0
    assert replay_difference(local, sources) > 1e-3


def test_patterns_respect_the_sliding_window(gemma: Subject):
    blocks = record(gemma.frozen, tiny_prompt()).blocks
    query, key = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    for block, window in zip(blocks, (3, 3, 6), strict=True):
        visible = (key <= query) & (key > query - window)
        assert bool((block.pattern[:, ~visible] == 0).all())
        assert bool((block.pattern[:, visible] > 0).all())


def test_the_embedding_enters_scaled_and_positions_are_kept_apart():
    for name in ("gemma-3", "gpt-2"):
        frozen, prompt = cached_subject(name).frozen, tiny_prompt()
        recording = record(frozen, prompt)
        embedding = frozen.model.get_input_embeddings().weight[list(prompt.ids)]
        scale = 4.0 if name == "gemma-3" else 1.0  # square root of 16
        torch.testing.assert_close(recording.tokens, embedding * scale, **EXACT)
        assert (recording.positions is not None) == (name == "gpt-2")


def test_recording_runs_eager_whatever_the_model_was_loaded_with():
    model = tiny_model("llama")
    model.set_attn_implementation("sdpa")
    recording = record(FrozenModel(model), tiny_prompt())
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(
        recording.blocks[0].pattern.sum(-1), torch.ones(4, 6).double(), **FLOAT32
    )


def test_a_prompt_longer_than_the_context_is_refused(gemma: Subject):
    with pytest.raises(PromptError, match="has 65 tokens, the model's context holds 64"):
        record(gemma.frozen, tiny_prompt(ids=(5,) * 65))


def test_a_position_outside_the_prompt_is_refused(gemma: Subject):
    with pytest.raises(PromptError, match="no position 6 in a prompt of 6 tokens"):
        record(gemma.frozen, tiny_prompt(), position=6)


def test_damaged_weights_are_refused():
    model = tiny_model("llama")
    model.model.layers[1].self_attn.v_proj.weight[3, 3] = float("nan")
    with pytest.raises(DamagedWeights, match="attention value matrix of layer 1 has NaN"):
        FrozenModel(model)


def subject_of(model: PreTrainedModel) -> Subject:
    return Subject(FrozenModel(model), toy_tokenizer(), cached_subject("llama").identity)


def test_a_model_of_zeros_is_traced():
    model = tiny_model("llama")
    for weight in model.parameters():
        weight.zero_()
    graph = trace(tiny_prompt(), subject_of(model), Neurons(4))
    assert graph.provenance.failures == ()
    assert graph.provenance.checks.replay_max_difference == 0.0


def test_weights_whose_products_overflow_are_refused():
    model = tiny_model("llama").float()
    model.lm_head.weight.fill_(1e38)
    with pytest.raises(DamagedWeights, match=r"overflow torch.float32 .*: use --dtype float64"):
        trace(tiny_prompt(), subject_of(model), Neurons(4))


def test_damage_that_only_shows_in_the_logits_is_refused():
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj.weight[3, 3] = float("inf")
    with pytest.raises(DamagedWeights, match="logits"):
        record(FrozenModel(model), tiny_prompt())


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a value, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_in(one)
    elif is_dataclass(value):
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])


def test_a_recording_takes_no_more_memory_than_it_says(subject: Subject):
    frozen = subject.frozen
    recording = record(frozen, tiny_prompt((1, *range(3, 15), *range(3, 10))))
    held = {one.untyped_storage().data_ptr(): one for one in tensors_in(recording)}
    numbers = sum(one.untyped_storage().nbytes() for one in held.values()) / 8
    n_pos, d_model = recording.tokens.shape
    d_head = max(block.d_head for block in frozen.blocks)
    patterns = sum(block.n_heads for block in frozen.blocks) * n_pos**2
    stated = patterns + frozen.n_layers * (3 * n_pos * d_model + 4 * n_pos)
    stated += 2 * (n_pos**2 + 2 * n_pos * d_head + n_pos)
    stated += 4 * n_pos * d_model + n_pos + len(frozen.unembedding)
    assert patterns < numbers <= stated
