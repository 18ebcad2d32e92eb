"""Whole traces on a card that is made up (benchmarks/card.py), and what it counts and refuses."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch
from card import CARD, MEMORY, SECOND, OnCard, card, on_card

import circuits.attribution.dense_rows
import circuits.machine
import circuits.recording.attention
import graphs
from circuits.attribution.trace_settings import (
    Direction,
    Expansion,
    TargetSettings,
    TraceSettings,
)
from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.features.transcoder import JointTopK
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.attention import PrecisionError
from circuits.recording.precision import Precision
from circuits.recording.record import record
from graphs import AttributionGraph
from tests.conftest import cached_subject
from tests.test_adjoint import DICTIONARIES
from tests.test_partial import partial
from tests.tiny import ARCHITECTURES, tiny_prompt, tiny_subject, toy_dictionary

JOINT = replace(toy_dictionary(), joint=JointTopK(6, (torch.ones(20).double(),) * 3))
WAITS = 21
SOURCES: dict[str, FeatureSource] = {
    "per layer": toy_dictionary(),
    "largest of all layers": JOINT,
    "neurons": Neurons(40),
    "neurons in some layers": Filled(partial(), Neurons(40)),
}


def on_the_card(source: FeatureSource) -> FeatureSource:
    if isinstance(source, TranscoderSet):
        return source.on(CARD)
    if isinstance(source, Filled):
        return replace(source, transcoders=source.transcoders.on(CARD))
    return source


def same_on_the_card(name: str, source: FeatureSource, *, placed: bool = True) -> None:
    """A trace on the card has the numbers of the CPU, and the host hardly waits for it.

    How often it does depends neither on layers nor on rows, but for one answer per round.  In the
    forward pass, transformers waits for what it will.
    """
    settings = TraceSettings(expansion=Expansion(max_features=20), labels=8)
    own = trace(tiny_prompt(), cached_subject(name), source, settings)
    with card() as watch:
        held, there = on_card(tiny_subject(name)), on_the_card(source) if placed else source
        watch.waits.clear()
        found = trace(tiny_prompt(), held, there, settings, watch.progress)
    waits = {place: n for place, n in watch.waits.items() if place[0] != "record"}
    assert sum(waits.values()) <= WAITS + (not placed), waits
    difference = abs(own.weights - found.weights).max() / abs(own.weights.data).max()
    assert difference < 1e-12
    assert np.array_equal(own.expanded, found.expanded)
    assert own.output_tokens == found.output_tokens
    assert graphs.influence(found) == pytest.approx(graphs.influence(own), rel=1e-9)
    assert_same_responses(own, found)


def assert_same_responses(own: AttributionGraph, found: AttributionGraph) -> None:
    assert own.responses is not None
    assert found.responses is not None
    one, other = own.responses, found.responses
    assert list(one.nodes) == list(other.nodes)
    assert one.neurons == other.neurons
    for a, b in zip(one.norms, other.norms, strict=True):
        assert a.mean_square == pytest.approx(b.mean_square, rel=1e-9)
        assert a.model_copy(update={"mean_square": b.mean_square}) == b
    for name in ("constant", "threshold", "flows"):
        assert getattr(one, name) == pytest.approx(
            getattr(other, name), rel=1e-9, abs=1e-12, nan_ok=True
        )
    if len(one.nodes):
        assert abs(one.weights - other.weights).max() < 1e-12 * abs(one.weights.data).max()


def test_a_direction_that_reads_a_lower_layer_is_traced_on_the_card():
    """It sees fewer sources than other targets do."""
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    targets = TargetSettings(directions=(Direction("probe", vector, layer=1),))
    settings = TraceSettings(targets, Expansion(max_features=20), labels=8)
    own = trace(tiny_prompt(), cached_subject("gemma-3"), SOURCES["per layer"], settings)
    with card():
        held, there = on_card(tiny_subject("gemma-3")), on_the_card(SOURCES["per layer"])
        found = trace(tiny_prompt(), held, there, settings)
    assert abs(own.weights - found.weights).max() < 1e-12 * abs(own.weights.data).max()


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "gpt-neox", "llama"])
@pytest.mark.parametrize("source", SOURCES)
def test_responses_inside_are_those_of_the_cpu(name: str, source: str):
    settings = TraceSettings(expansion=Expansion(max_features=40), labels=8, inner_rows=200)
    own = trace(tiny_prompt(), cached_subject(name), SOURCES[source], settings)
    with card():
        held, there = on_card(tiny_subject(name)), on_the_card(SOURCES[source])
        found = trace(tiny_prompt(), held, there, settings)
    assert_same_responses(own, found)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_is_traced_on_the_card(name: str):
    same_on_the_card(name, DICTIONARIES["cross-layer, skips to every layer"])


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "gpt-neox"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_traced_on_the_card(name: str, source: str):
    same_on_the_card(name, SOURCES[source])


@pytest.mark.parametrize("kind", [kind for kind, one in DICTIONARIES.items() if one is not None])
def test_a_dictionary_may_stay_on_the_host(kind: str):
    """Layer by layer its encoder is copied, and of what is active the rows: one more answer."""
    same_on_the_card("gemma-3", DICTIONARIES[kind], placed=False)


def test_of_a_dictionary_on_the_host_only_active_rows_are_kept_on_the_card():
    dictionary = toy_dictionary()
    with card():
        held = on_card(tiny_subject("gemma-3"))
        recording = record(held.frozen, tiny_prompt())
        found = dictionary.active(held.frozen, recording)
        parts = found.rows.transcoders
        assert [part.d_dict for part in parts] == [
            len(np.unique(found.on_host.index[found.read_at(layer)])) for layer in range(3)
        ]
        assert all(part.encoder.device == CARD for part in parts)
        same = dictionary.on(CARD).active(held.frozen, recording)
        for layer in range(3):
            rows = torch.arange(*found.first[layer : layer + 2], device=CARD)
            written = [one.rows.decoder(layer, layer, rows).cpu() for one in (found, same)]
            np.testing.assert_array_equal(*written)


def made() -> OnCard:
    return torch.zeros(3, 4, device=CARD)  # pyright: ignore


WAITING: dict[str, Callable[[torch.Tensor], object]] = {
    "a number": lambda x: x.sum().item(),
    "a condition": lambda x: bool(x.any()),
    "a list": lambda x: x.tolist(),
    "a copy": lambda x: x.cpu(),
    "a size": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "an upload": lambda x: x + torch.ones(4).to(CARD),
    "a constant": lambda x: x + torch.tensor([1.0], device=CARD),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_the_host_waits_for_is_counted(what: str):
    with card() as watch:
        x = made()
        assert sum(watch.waits.values()) == 0
        WAITING[what](x)
        assert sum(watch.waits.values()) == 1


def test_what_needs_no_answer_is_no_wait():
    with card() as watch:
        x = made()
        chosen = torch.ones(2, dtype=torch.int64).to(CARD, non_blocking=True)
        y = (x @ x.T).index_select(0, chosen).cumsum(1).sort(1).values
        y[:, 0] = 1.0
        assert sum(watch.waits.values()) == 0
        assert watch.copied["start"] == 16
        assert y.tolist() == [[1.0, 0.0, 0.0]] * 2


def test_a_launch_is_what_computes_and_no_view():
    with card() as watch:
        x = made()
        watch.progress("later", 0, 1)
        _ = x[1:].T.view(-1, 2).unsqueeze(0).expand(3, -1, -1)
        assert not any(stage == "later" for stage, _ in watch.launches)
        _ = torch.nn.functional.linear(x, x)
        x += 1
    counted = {name: n for (stage, name), n in watch.launches.items() if stage == "later"}
    assert counted == {"mm": 1, "add_": 1}


def test_tensors_of_two_devices_do_not_meet():
    with card() as watch:
        other = made().to(SECOND)
        assert watch.crossings == {("start", CARD, SECOND): 1}
        assert watch.crossed == {("start", CARD, SECOND): 48}
        for wrong in (lambda x: x + other, lambda x: x[other[0].long()], lambda x: x + other.sum()):
            with pytest.raises(RuntimeError, match="on two cards"):
                wrong(made())
        for wrong in (lambda x: x + torch.ones(3, 4), lambda x: x[torch.ones(2).long()]):
            with pytest.raises(RuntimeError, match="on the card and on the host"):
                wrong(made())
        with pytest.raises(RuntimeError, match="numpy"):
            made().numpy()


def test_random_numbers_come_from_a_generator_of_the_device_that_they_fill():
    with card():
        own, other = torch.Generator(CARD).manual_seed(1), torch.Generator().manual_seed(1)
        for draw in (
            lambda generator: torch.multinomial(made() + 1, 1, generator=generator),
            lambda generator: torch.rand(3, device=CARD, generator=generator),
            lambda generator: made().normal_(generator=generator),
        ):
            with pytest.raises(RuntimeError, match="expected a 'card' generator, found one on cpu"):
                draw(other)
            assert draw(own).device == CARD
        with pytest.raises(RuntimeError, match="expected a 'cpu' generator, found one on card"):
            torch.rand(3, generator=own)


def test_tensors_of_a_card_may_have_shapes_alone():
    with card(shapes=True) as watch:
        before = MEMORY.held
        x = torch.empty(10**6, 10**6, device=CARD)
        y = x @ x[:, :5]
        assert (y.shape, y.device) == ((10**6, 5), CARD)
        assert MEMORY.held - before == 4 * (10**12 + 5 * 10**6)
        assert watch.flops["start"] == 2 * 5 * 10**12


def test_a_card_may_lack_float64():
    with card(float64=False):
        with pytest.raises(TypeError, match="no float64"):
            made().double()
        made().float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_of_numbers_are_traced_on_the_card(dtype: torch.dtype):
    """Rows are kept in float32; their products are made in another order than on the CPU."""
    settings = TraceSettings(expansion=Expansion(everything=True), labels=8)
    own, held = (in_type("gemma-3", dtype) for _ in range(2))
    with card():
        source = toy_dictionary()
        found = trace(tiny_prompt(), on_card(held), on_the_card(source), settings)
    expected = trace(tiny_prompt(), own, source, settings)
    assert found.weights.dtype == expected.weights.dtype == np.float32
    assert len(found) == len(expected)
    difference = abs(expected.weights - found.weights).max() / abs(expected.weights.data).max()
    assert difference < (1e-5 if dtype == torch.float32 else 0.05)
    checks = found.provenance.checks
    assert checks.conservation_max <= (checks.conservation_limit or 0)


def in_type(name: str, dtype: torch.dtype) -> Subject:
    subject = tiny_subject(name)
    return Subject(FrozenModel(subject.frozen.model.to(dtype)), subject.tokenizer, subject.identity)


def test_few_bytes_for_groups_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """Rows come in several blocks, groups of a few targets, and parts that are thinned."""
    monkeypatch.setattr(circuits.machine, "MOST_WORKING", 30_000)
    monkeypatch.setattr(circuits.machine, "LEAST_WORKING", 1)
    monkeypatch.setattr(circuits.attribution.dense_rows, "PART_BYTES", 10_000)
    same_on_the_card("gemma-3", DICTIONARIES["cross-layer, skip"])


def traced_within(memory: int | None) -> tuple[AttributionGraph, int]:
    """A trace on a card with so many bytes left after the model, and what it held at most."""
    settings = TraceSettings(expansion=Expansion(everything=True), labels=8)
    with card():
        held, placed = on_card(tiny_subject("gemma-3")), on_the_card(toy_dictionary())
        gc.collect()
        before = MEMORY.held
        with card(memory=memory) as watch:
            return trace(tiny_prompt(), held, placed, settings), watch.peak - before


def test_out_of_memory_halves_what_is_swept_at_once_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(circuits.machine, "LEAST_WORKING", 1000)
    whole, peak = traced_within(None)
    assert not caplog.messages
    found, less = traced_within(int(0.8 * peak))
    assert less <= 0.8 * peak
    assert caplog.messages
    assert all("Out of memory on card" in message for message in caplog.messages)
    difference = abs(whole.weights - found.weights).max() / abs(whole.weights.data).max()
    assert difference < 1e-12
    np.testing.assert_allclose(found.dropped, whole.dropped, atol=1e-12)
    with pytest.raises(torch.OutOfMemoryError):
        traced_within(1000)


def test_what_the_card_holds_is_counted_once():
    with card() as watch:
        gc.collect()
        before = MEMORY.held
        x = made()
        y = x[1:].T
        assert MEMORY.held - before == 48
        del x
        assert MEMORY.held - before == 48
        z = y * 2
        assert MEMORY.held - before == 48 + 32
        del y, z
        assert MEMORY.held == before
        assert watch.peak == before + 80
    with card(memory=40), pytest.raises(torch.OutOfMemoryError):
        made()


def traced_in_float32(precision: Precision, *, float64: bool = True) -> AttributionGraph:
    """Gemma 3 in float32 on the card, whose tensor cores read 10 bits."""
    settings = TraceSettings(
        expansion=Expansion(everything=True, kept_share=1.0), labels=8, precision=precision
    )
    held = in_type("gemma-3", torch.float32)
    with card(float64=float64):
        return trace(tiny_prompt(), on_card(held), on_the_card(toy_dictionary()), settings)


def distance(one: AttributionGraph, other: AttributionGraph) -> float:
    difference = (one.weights - other.weights).toarray()
    return float(np.linalg.norm(difference) / np.linalg.norm(other.weights.toarray()))


def test_a_split_product_is_as_exact_as_float32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.recording.attention, "TENSOR_CORES", {"card"})
    own = traced_in_float32(Precision.IEEE)
    split, tensor_cores = (traced_in_float32(one) for one in (Precision.SPLIT, Precision.TF32))
    assert split.provenance.precision == "3xtf32"
    assert split.provenance.checks.conservation_max < 1e-5
    assert distance(split, own) < 2e-6
    checks = tensor_cores.provenance.checks
    assert 1e-5 < checks.conservation_max < checks.conservation_limit == 0.02
    assert 1e-5 < distance(tensor_cores, own) < 0.01


def test_tensor_cores_are_used_only_if_they_are_chosen():
    """Whatever the program around has set."""
    own = traced_in_float32(Precision.IEEE)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        found = traced_in_float32(Precision.IEEE)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert own.provenance.precision == "ieee"
    assert distance(found, own) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensor_cores_elsewhere_are_refused(dtype: torch.dtype):
    settings = TraceSettings(precision=Precision.SPLIT)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(PrecisionError, match=f"this one is in {kind} on cpu: leave out"):
        trace(tiny_prompt(), in_type("gemma-3", dtype), toy_dictionary(), settings)


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_without_float64_is_enough(source: str, monkeypatch: pytest.MonkeyPatch):
    """As Apple's MPS is, on which nobody has run this yet."""
    monkeypatch.setattr(circuits.machine, "WITHOUT_FLOAT64", {"card"})
    settings = TraceSettings(expansion=Expansion(max_features=30), labels=8)
    expected = trace(tiny_prompt(), in_type("gemma-3", torch.float32), SOURCES[source], settings)
    held = in_type("gemma-3", torch.float32)
    with card(float64=False):
        found = trace(tiny_prompt(), on_card(held), on_the_card(in_float32(source)), settings)
    assert np.array_equal(found.expanded, expected.expanded)
    assert distance(found, expected) < 1e-5
    assert not found.provenance.failures


def in_float32(source: str) -> FeatureSource:
    """A source whose numbers a device without float64 holds."""

    def converted(value):
        if isinstance(value, torch.Tensor):
            return value.float() if value.dtype == torch.float64 else value
        if isinstance(value, tuple):
            return tuple(map(converted, value))
        if is_dataclass(value) and not isinstance(value, type):
            parts = {field.name: converted(getattr(value, field.name)) for field in fields(value)}
            return replace(value, **parts)
        return value

    return converted(SOURCES[source])
