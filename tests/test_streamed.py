"""Dictionaries larger than a device: encoders stream from their files, with the same numbers."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from card import CARD, MEMORY, SECOND, card, on_card

import circuits.features.placed
import circuits.features.streamed
import circuits.features.transcoder
from circuits.attribution.estimate import Estimate
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.files.source import SourceChoice, read_source
from circuits.features.kept_in import KeptIn
from circuits.features.placed import NoRoom
from circuits.features.streamed import Lane, streamed
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.subject import read_subject
from circuits.pipe import estimate_trace, trace
from circuits.recording.record import record
from tests.devices import over
from tests.test_adjoint import DICTIONARIES
from tests.test_cli import run
from tests.test_devices import assert_same
from tests.tiny import tiny_prompt, tiny_subject, toy_dictionary

SETTINGS = TraceSettings(expansion=Expansion(max_features=20), labels=8)
KINDS = [kind for kind, one in DICTIONARIES.items() if one is not None]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of 20 features at 16 dimensions goes in four parts, the last one smaller."""
    monkeypatch.setattr(circuits.features.transcoder, "CONVERTED_VALUES", 6 * 16)


@pytest.mark.parametrize("devices", [(CARD,), (CARD, SECOND)], ids=["a card", "two cards"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_streamed_dictionary_has_the_numbers_of_one_on_the_device(kind: str, devices: tuple):
    dictionary = DICTIONARIES[kind]
    assert dictionary is not None
    with card():
        found = []
        for kept_in in (KeptIn.FILES, KeptIn.DEVICE):
            subject = over(devices, "gemma-3")
            source = dictionary.beside(subject.frozen, kept_in=kept_in)
            streams = [source.streams(subject.frozen, layer) for layer in range(3)]
            assert streams == [kept_in == KeptIn.FILES] * 3
            found.append(trace(tiny_prompt(), subject, source, SETTINGS))
    assert_same(*found)


def parts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(6, 16, generator=generator).bfloat16() for _ in range(7)]


def test_two_parts_and_a_converted_one_are_on_the_device_at_once():
    sent, like = parts(), torch.zeros(1)
    with card():
        there = like.to(CARD)
        gc.collect()
        before, MEMORY.peak = MEMORY.held, MEMORY.held
        arriving = streamed(((one, there) for one in sent), 192)
        for own in sent:
            part = next(arriving)
            assert part.dtype == torch.float32
            torch.testing.assert_close(part.cpu(), own.float(), rtol=0, atol=0)
            del part
        assert next(arriving, None) is None
        assert MEMORY.peak - before == 2 * 192 + 384
        assert MEMORY.held == before


def test_the_next_part_is_on_its_way_before_one_is_used(monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    own_send = Lane.send

    def send(lane: Lane, part: torch.Tensor, like: torch.Tensor):
        sent = own_send(lane, part, like)
        told.append(f"send by {sent.buffer}")
        return sent

    monkeypatch.setattr(Lane, "send", send)
    with card():
        like = torch.zeros(1, device=CARD)
        for number, _ in enumerate(streamed(((one, like) for one in parts()[:4]), 192)):
            told.append(f"use {number}")
    assert told == [
        *("send by 0", "send by 1", "use 0"),
        *("send by 0", "use 1", "send by 1", "use 2", "use 3"),
    ]


def test_buffers_and_products_wait_for_copies_in_a_stream_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
):
    """What a CUDA GPU is told, in order, by a made-up one."""
    told: list[str] = []

    class Event:
        made = 0

        def __init__(self) -> None:
            self.name, Event.made = f"event {Event.made}", Event.made + 1

        def synchronize(self) -> None:
            told.append(f"host waits for {self.name}")

        def record(self, stream: str) -> None:
            told.append(f"{self.name} in {stream}")

    class Current:
        def wait_event(self, event: Event) -> None:
            told.append(f"products wait for {event.name}")

    @contextmanager
    def within(stream: str) -> Iterator[None]:
        told.append(f"copy in {stream}")
        yield

    monkeypatch.setattr(circuits.features.streamed, "STREAMS", {"card"})
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: "side")
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Current())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: told.append("products keep it"))
    with card():
        like = torch.zeros(1, device=CARD)
        found = [part.cpu() for part in streamed(((one, like) for one in parts()[:3]), 192)]
    for part, own in zip(found, parts(), strict=False):
        torch.testing.assert_close(part, own.float(), rtol=0, atol=0)

    def sent(number: int) -> list[str]:
        event = f"event {number}"
        return [f"host waits for {event}", "copy in side", f"{event} in side"]

    def used(number: int) -> list[str]:
        return [f"products wait for event {number}", "products keep it"]

    assert told == [*sent(0), *sent(1), *used(0), *sent(0), *used(1), *used(0)]


def test_parts_of_a_layer_follow_those_of_the_layer_below(monkeypatch: pytest.MonkeyPatch):
    """So one lane is enough for all layers, and it never runs dry between them."""
    lanes: list[int] = []
    own_init = Lane.__init__

    def init(lane: Lane, device: torch.device, size: int) -> None:
        lanes.append(size)
        own_init(lane, device, size)

    monkeypatch.setattr(Lane, "__init__", init)
    with card() as watch:
        held = on_card(tiny_subject("gemma-3"))
        recording = record(held.frozen, tiny_prompt())
        watch.clear()
        toy_dictionary().active(held.frozen, recording)
    assert lanes == [6 * 16 * 8]


@pytest.mark.parametrize(
    ("free", "kept_in", "resident"),
    [
        (2.0, KeptIn.AUTO, True),
        (1.9, KeptIn.AUTO, False),
        (1.0, KeptIn.DEVICE, True),
        (9.0, KeptIn.FILES, False),
    ],
)
def test_bytes_decide_where_a_dictionary_is_unless_told(
    free: float, kept_in: KeptIn, resident: bool, monkeypatch: pytest.MonkeyPatch
):
    dictionary = toy_dictionary()
    size = circuits.features.placed.bytes_in(dictionary.layers)
    monkeypatch.setattr(circuits.features.placed, "free_device_bytes", lambda *_: int(free * size))
    with card():
        held = on_card(tiny_subject("gemma-3"))
        found = dictionary.beside(held.frozen, kept_in=kept_in)
        assert all((one.encoder.device == CARD) == resident for one in found.layers)
        assert found.device_bytes(held.frozen) == (size if resident else 3 * 6 * 16 * 8)
        if kept_in == KeptIn.DEVICE:
            monkeypatch.setattr(circuits.features.placed, "free_device_bytes", lambda *_: size - 1)
            with pytest.raises(NoRoom, match=r"on card:0, and 0\.0 GiB are free: leave out"):
                dictionary.beside(held.frozen, kept_in=kept_in)


def test_each_card_has_room_for_its_own_layers(monkeypatch: pytest.MonkeyPatch):
    dictionary = toy_dictionary()
    sizes = {CARD: 10**9, SECOND: 0}
    monkeypatch.setattr(
        circuits.features.placed, "free_device_bytes", lambda device, _: sizes[device]
    )
    with card():
        subject = over((CARD, SECOND), "llama")
        placed = dictionary.beside(subject.frozen)
        blocks = subject.frozen.blocks
        where = [placed.streams(subject.frozen, layer) for layer in range(3)]
    assert where == [block.device == SECOND for block in blocks]
    assert {*where} == {True, False}


def test_an_estimate_counts_what_streams_through_at_once():
    with card():
        held = on_card(tiny_subject("gemma-3"))
        found = [
            estimate_trace(tiny_prompt(), held, source, SETTINGS)
            for source in (toy_dictionary(), toy_dictionary().on(CARD))
        ]
    assert [one.streamed for one in found] == [True, False]
    assert found[0].dictionary_bytes == 3 * 6 * 16 * 8
    assert found[1].dictionary_bytes == circuits.features.placed.bytes_in(toy_dictionary().layers)


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((2**29, True), "dictionary: in its files, at most 0.5 GiB of it at once on cpu\n"),
        ((2**31, False), "dictionary: 2.0 GiB on cpu\n"),
        ((0, False), None),
    ],
)
def test_the_command_says_how_much_of_a_dictionary_is_on_devices(
    numbers: tuple[int, bool], line: str | None, monkeypatch: pytest.MonkeyPatch
):
    found = Estimate(734, 735, 9, 1e9, 1.0, 1.0, 2**30, 2**31, 0, *numbers)
    monkeypatch.setattr(circuits, "estimate_trace", lambda *_: found)
    printed = run("estimate", "The capital is").stdout
    assert printed.endswith(line or "2.0 GiB at the peak\n")


def test_what_is_streamed_counts_as_memory_that_is_needed():
    with card():
        held = on_card(tiny_subject("gemma-3"))
        streaming, there = toy_dictionary(), toy_dictionary().on(CARD)
        needed = [one.peak_values(held.frozen, 5) for one in (streaming, there)]
    assert needed == [3 * 5 * 20 + 3 * 6 * 16, 3 * 5 * 20]


def test_on_the_cpu_files_are_read_where_they_are_mapped():
    subject = read_subject("atlas-small")
    for kept_in in KeptIn:
        source = read_source(subject, SourceChoice(kept_in=kept_in))
        assert isinstance(source, TranscoderSet)
        assert not source.stream_values(subject.frozen)
