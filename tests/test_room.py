from __future__ import annotations

import re
from dataclasses import is_dataclass

import pytest
import torch

import circuits.attribution.cost
import circuits.attribution.local_replacement
import circuits.pipe
from circuits.attribution.cost import (
    Bytes,
    DoesNotFit,
    require_room,
    require_room_for_sources,
    require_room_to_gather,
    require_room_to_record,
    require_room_to_sweep,
)
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.sources import build_sources
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.neurons import Neurons
from circuits.machine import free_bytes, free_device_bytes, held_bytes
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt, PromptError
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.attention import Attention
from circuits.recording.record import Recording, record
from tests.test_estimate import plan, prepared
from tests.tiny import tiny_prompt, toy_dictionary


def few_numbers_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only edges, which on a tiny model are smaller than any block."""
    monkeypatch.setattr(circuits.attribution.cost, "BLOCK_WEIGHTS", 0)
    monkeypatch.setattr(circuits.attribution.cost, "block_positions", lambda *_: 0.001)
    monkeypatch.setattr(circuits.attribution.cost, "MOST_FORWARD", 0)


def test_what_does_not_fit_is_refused_with_a_number_that_does(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    few_numbers_at_work(monkeypatch)
    every = plan(prepared(gemma), Expansion(everything=True))
    free = Bytes(every.limited(30).need().host + 1, 10**12)
    require_room(every.limited(30), free, everything=False)
    with pytest.raises(DoesNotFit, match="lower --all to --max-features") as refused:
        require_room(every, free, everything=True)
    advised = re.search(r"--max-features ([\d,]+)", str(refused.value))
    assert advised is not None
    most = int(advised[1].replace(",", ""))
    assert 20 <= most < every.limit
    require_room(every.limited(most), free, everything=False)
    with pytest.raises(DoesNotFit, match=r"lower --max-features 100 to --max-features"):
        require_room(every.limited(100), free, everything=False)
    with pytest.raises(DoesNotFit, match="shorten the prompt, or try"):
        require_room(every, Bytes(0, 0), everything=False)


def test_a_trace_is_refused_before_most_of_its_rows_are_there(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    few_numbers_at_work(monkeypatch)
    every = plan(prepared(gemma), Expansion(everything=True))
    settings = TraceSettings(expansion=Expansion(everything=True), labels=0)
    free = Bytes(every.need().host / 2, 10**12)
    monkeypatch.setattr(circuits.pipe, "free_memory", lambda *_: free)
    swept: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "sweep":
            swept.append(done)

    with pytest.raises(DoesNotFit, match="lower --all"):
        trace(tiny_prompt(), gemma, toy_dictionary(), settings, progress)
    assert swept == [0]
    assert len(trace(tiny_prompt(), gemma, toy_dictionary(), settings, force=True)) > 0


@pytest.mark.parametrize("cross_layer", [False, True])
def test_sources_are_refused_if_they_do_not_fit(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch, cross_layer: bool
):
    sweeper = prepared(gemma, cross_layer=cross_layer)
    vectors = sum(layer.tiles.vectors.numel() for layer in sweeper.sources.layers)
    by_head = numbers([f.matrix for factors in sweeper.attention.output for f in factors])
    taken = 8 * (vectors + by_head)
    module = circuits.attribution.cost
    monkeypatch.setattr(module, "free_device_bytes", lambda *_: 2 * taken)
    require_room_for_sources(sweeper.local)
    monkeypatch.setattr(module, "free_device_bytes", lambda *_: int(0.9 * taken))
    with pytest.raises(DoesNotFit, match="shorten the prompt or use a dictionary"):
        require_room_for_sources(sweeper.local)


def test_a_limit_on_memory_is_kept(gemma: Subject):
    """What this process holds counts towards it."""
    settings = TraceSettings(memory=held_bytes() // 2)
    with pytest.raises(DoesNotFit, match=r"and 0\.0 GiB are free"):
        trace(tiny_prompt(), gemma, toy_dictionary(), settings)
    assert free_bytes(2 * held_bytes() + 2**30) > 2**29
    assert free_bytes(0) == free_device_bytes(torch.device("cpu"), 0) == 0


def test_a_forward_pass_that_does_not_fit_is_refused(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    source = toy_dictionary()
    require_room_to_record(gemma.frozen, source, 6)
    with pytest.raises(DoesNotFit, match=r"a prompt of 1,000,000 tokens needs about .* GiB more"):
        require_room_to_record(gemma.frozen, source, 10**6)
    monkeypatch.setattr(circuits.attribution.cost, "free_bytes", lambda *_: 0)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda *_: 0)
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
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda *_: held)
    require_room_to_sweep(frozen, prompt)
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda *_: held // 2)
    with pytest.raises(DoesNotFit, match=r"A trace of 60 tokens needs at least .* shorten the"):
        require_room_to_sweep(frozen, prompt)


def test_what_cannot_fit_whatever_fires_is_refused_before_the_model_is_run(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    prompt = tiny_prompt((1, *[5, 9] * 2000, 8))
    patterns = 3 * 4 * 4002**2 * 8  # layers, heads
    monkeypatch.setattr(
        circuits.attribution.cost, "free_device_bytes", lambda *_: int(0.95 * patterns)
    )
    # The patterns of many layers would be refused before.
    monkeypatch.setattr(circuits.pipe, "require_room_to_record", lambda *_: None)
    where = "circuits.attribution.local_replacement.record"
    monkeypatch.setattr(where, lambda *_: pytest.fail("the model was run"))
    with pytest.raises(PromptError, match="the model's context holds 64"):  # no memory would help
        trace(prompt, gemma, toy_dictionary())
    monkeypatch.setattr(type(gemma.frozen), "context_length", None)
    with pytest.raises(DoesNotFit, match=r"A trace of 4,002 tokens needs at least 1\.4 GiB more"):
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
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda *_: gathered)
    require_room_to_gather(gemma.frozen, prompt, source)
    assert lengths == [256]
    monkeypatch.setattr(circuits.attribution.cost, "free_device_bytes", lambda *_: gathered // 3)
    monkeypatch.setattr(circuits.pipe, "require_room_to_record", lambda *_: None)
    with pytest.raises(DoesNotFit, match=r"The first 256 of 1,501 tokens .* shorten the prompt"):
        trace(prompt, gemma, source)
    assert lengths == [256, 256]  # the whole was never run
    require_room_to_gather(gemma.frozen, tiny_prompt(), source)  # a short one is not looked at
    require_room_to_gather(gemma.frozen, prompt, Neurons(100))  # has a bound of its own
    assert lengths == [256, 256, 256]
