from __future__ import annotations

import re
from dataclasses import is_dataclass

import pytest
import torch

import circuits.attribution.cost
import circuits.attribution.estimate
import circuits.attribution.local_replacement
import circuits.pipe
from circuits.attribution.cost import (
    DoesNotFit,
    Plan,
    require_room,
    require_room_to_gather,
    require_room_to_record,
    require_room_to_sweep,
)
from circuits.attribution.estimate import estimate
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.rows import Expansion
from circuits.attribution.sources import build_sources
from circuits.attribution.targets import TargetSettings
from circuits.features.neurons import Neurons
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt, PromptError
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.attention import Attention
from circuits.recording.record import Recording, record
from tests.test_estimate import prepared, without_blocks
from tests.tiny import tiny_prompt, toy_dictionary


def test_what_does_not_fit_is_refused_with_a_number_that_does(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    local = prepared(gemma)
    few, many = Expansion(max_features=30), Expansion(everything=True)
    without_blocks(monkeypatch)
    there = estimate(local, few).peak_bytes + 1
    monkeypatch.setattr(circuits.attribution.cost, "free_bytes", lambda: there)
    require_room(Plan(local, few))
    with pytest.raises(DoesNotFit, match="lower --all to --max-features") as refused:
        require_room(Plan(local, many))
    advised = re.search(r"--max-features ([\d,]+)", str(refused.value))
    assert advised is not None
    most = int(advised[1].replace(",", ""))
    assert 20 <= most < len(local.features)
    require_room(Plan(local, Expansion(max_features=most)))
    with pytest.raises(DoesNotFit, match=r"lower --max-features 100 to --max-features"):
        require_room(Plan(local, Expansion(max_features=100)))


def test_sources_that_do_not_fit_are_refused(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.attribution.cost, "free_bytes", lambda: 1000)
    local = prepared(gemma)
    with pytest.raises(DoesNotFit, match="shorten the prompt or use a dictionary"):
        require_room(Plan(local, Expansion(max_features=1)))


def test_a_forward_pass_that_does_not_fit_is_refused(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    source = toy_dictionary()
    require_room_to_record(gemma.frozen, source, 6)
    with pytest.raises(DoesNotFit, match=r"a prompt of 1,000,000 tokens needs about .* GiB more"):
        require_room_to_record(gemma.frozen, source, 10**6)
    monkeypatch.setattr(circuits.attribution.cost, "free_bytes", lambda: 0)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda _: 0)
    with pytest.raises(DoesNotFit, match="Recording a prompt"):
        trace(tiny_prompt(), gemma, source)
    assert len(trace(tiny_prompt(), gemma, source, force=True)) > 0


def numbers(*held: object) -> int:
    """How many numbers tensors hold, anywhere inside, each memory counted once."""
    found: dict[int, int] = {}

    def visit(one: object) -> None:
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes() // one.element_size()
        elif isinstance(one, (list, tuple)):
            for part in one:
                visit(part)
        elif is_dataclass(one):
            for part in vars(one).values():
                visit(part)

    for one in held:
        visit(one)
    return sum(found.values())


def test_a_sweep_holds_at_least_what_is_asked_for_before_it_is_begun(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
):
    """Of a prompt on which nothing is active, for all else is more."""
    prompt, frozen = tiny_prompt(tuple(1 + i % 20 for i in range(60))), subject.frozen
    silent = Neurons(0) if frozen.layout.experts is None else toy_dictionary()
    with torch.inference_mode():
        local = local_replacement(prompt, subject, silent, TargetSettings())
        sources = build_sources(local)
        attention = Attention(frozen, local.recording, prompt.n_prefix)
    layers = [(x.tiles.vectors, x.mlp_constant, x.attention_constant) for x in sources.layers]
    held = 8 * numbers(local.recording.blocks, attention.mixing, layers)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda _: held)
    require_room_to_sweep(frozen, prompt)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda _: held // 2)
    with pytest.raises(DoesNotFit, match=r"A trace of 60 tokens needs at least .* shorten the"):
        require_room_to_sweep(frozen, prompt)


def test_what_cannot_fit_whatever_fires_is_refused_before_the_model_is_run(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    prompt = tiny_prompt((1, *[5, 9] * 2000, 8))
    patterns = 3 * 4 * 4002**2 * 8  # layers, heads; a sweep holds them twice
    monkeypatch.setattr(
        circuits.attribution.cost, "free_device_bytes", lambda _: int(1.9 * patterns)
    )
    # The patterns of many layers would be refused before.
    monkeypatch.setattr(circuits.pipe, "require_room_to_record", lambda *_: None)
    where = "circuits.attribution.local_replacement.record"
    monkeypatch.setattr(where, lambda *_: pytest.fail("the model was run"))
    with pytest.raises(PromptError, match="the model's context holds 64"):  # no memory would help
        trace(prompt, gemma, toy_dictionary())
    monkeypatch.setattr(type(gemma.frozen), "context_length", None)
    with pytest.raises(DoesNotFit, match=r"A trace of 4,002 tokens needs at least 2\.9 GiB more"):
        trace(prompt, gemma, toy_dictionary())


@pytest.mark.parametrize("cross_layer", [False, True])
def test_what_is_active_on_the_first_tokens_refuses_a_long_prompt(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch, cross_layer: bool
):
    """A prompt of one part over and over: what is gathered is known from the whole of it."""
    prompt, source = tiny_prompt((1, *[5, 9, 8] * 500)), toy_dictionary(cross_layer=cross_layer)
    monkeypatch.setattr(type(gemma.frozen), "context_length", None)
    with torch.inference_mode():
        local = local_replacement(prompt, gemma, source, TargetSettings())
        layers = build_sources(local).layers
    gathered = 8 * sum(layer.tiles.vectors.numel() for layer in layers)
    lengths: list[int] = []

    def run(frozen: FrozenModel, prompt: Prompt, *rest: int) -> Recording:
        lengths.append(len(prompt))
        return record(frozen, prompt, *rest)

    monkeypatch.setattr(circuits.attribution.cost, "record", run)
    monkeypatch.setattr(circuits.attribution.local_replacement, "record", run)
    monkeypatch.setattr(circuits.pipe, "require_room_to_sweep", lambda *_: None)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda _: gathered)
    require_room_to_gather(gemma.frozen, prompt, source)
    assert lengths == [256]
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda _: gathered // 3)
    monkeypatch.setattr(circuits.pipe, "require_room_to_record", lambda *_: None)
    with pytest.raises(DoesNotFit, match=r"The first 256 of 1,501 tokens .* shorten the prompt"):
        trace(prompt, gemma, source)
    assert lengths == [256, 256]  # the whole was never run
    require_room_to_gather(gemma.frozen, tiny_prompt(), source)  # a short one is not looked at
    require_room_to_gather(gemma.frozen, prompt, Neurons(100))  # has a bound of its own
    assert lengths == [256, 256, 256]
