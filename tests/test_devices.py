"""Models over several devices, all made up but the CPU: the numbers of one device, few copies."""

from __future__ import annotations

from collections import Counter
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from card import CARD, HOST, SECOND, card
from torch import nn
from torch.utils._pytree import tree_map_only

import circuits.attribution.cost
import circuits.model.placement
from circuits.attribution.cost import DoesNotFit, free_for_blocks
from circuits.attribution.sweep import ForwardPrefix, sweep_block
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.model.architectures import part
from circuits.model.frozen import Covectors, FrozenModel
from circuits.model.placement import DeviceError, divided, place, usable_devices
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.recording.attention import Attention
from circuits.recording.record import record
from circuits.training.finished.complete import stream_of
from circuits.training.run import Run
from circuits.training.settings import TrainSettings
from graphs import AttributionGraph, ModelIdentity
from graphs.core.opening import DocumentOpening
from tests.devices import PAIRS, beside, crossings, over
from tests.test_adjoint import DICTIONARIES, prepare
from tests.test_card import SOURCES, assert_same_responses
from tests.test_partial import partial
from tests.test_training import random_corpus
from tests.tiny import (
    ARCHITECTURES,
    tiny_model,
    tiny_prompt,
    tiny_subject,
    toy_dictionary,
    toy_tokenizer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = TraceSettings(expansion=Expansion(max_features=20), labels=8, inner_rows=30)
HARDEST = DICTIONARIES["cross-layer, skips to every layer"]
KINDS: dict[str, FeatureSource] = {
    **{kind: one or Neurons(40) for kind, one in DICTIONARIES.items()},
    "largest of all layers": SOURCES["largest of all layers"],
    "neurons in some layers": Filled(partial(), Neurons(40)),
}


def assert_same(found: AttributionGraph, own: AttributionGraph) -> None:
    """The same to the last bit: sums are made in the same order wherever their parts lie."""
    assert found.output_tokens == own.output_tokens
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found.weights, name), getattr(own.weights, name))
    for name in ("dropped", "dropped_absolute", "expanded", "seed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(own, name))
    np.testing.assert_array_equal(found.nodes.value, own.nodes.value)
    assert found.heads is not None
    assert own.heads is not None
    np.testing.assert_array_equal(found.heads.parts, own.heads.parts)
    assert found.provenance.checks == own.provenance.checks
    assert_same_responses(own, found)


def traced_over(
    devices: tuple[torch.device, ...],
    name: str,
    source: FeatureSource,
    settings: TraceSettings = SETTINGS,
) -> AttributionGraph:
    with card():
        subject = over(devices, name)
        return trace(tiny_prompt(), subject, beside(subject, source), settings)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_over_two_cards_has_the_numbers_of_one(name: str):
    assert HARDEST is not None
    few = TraceSettings(expansion=Expansion(max_features=8), labels=2)
    assert_same(*(traced_over(ways, name, HARDEST, few) for ways in ((CARD, SECOND), (CARD,))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "gpt-neox"])
def test_every_source_over_two_cards_has_the_numbers_of_one(name: str, kind: str):
    assert_same(*(traced_over(ways, name, KINDS[kind]) for ways in ((CARD, SECOND), (CARD,))))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gemma-3", "gpt-neox"])
def test_the_sweep_of_the_cpu_may_begin_on_a_card(name: str, kind: str):
    found = traced_over(PAIRS["CPU first"], name, KINDS[kind])
    own = trace(tiny_prompt(), tiny_subject(name), KINDS[kind], SETTINGS)
    assert abs(found.weights - own.weights).max() < 1e-14 * abs(own.weights.data).max()
    assert found.output_tokens == own.output_tokens
    assert_same_responses(own, found)


@pytest.mark.parametrize("split", [0, 1, 2, 3])
def test_sources_are_pushed_forward_from_device_to_device(split: int):
    prepared = prepare(tiny_subject("gemma-3"), DICTIONARIES["per layer"], tiny_prompt())
    with card():
        subject = over(PAIRS["CPU first"], "gemma-3")
        found = prepare(subject, beside(subject, toy_dictionary()), tiny_prompt())
        rows = found.rows(split=split)
    np.testing.assert_allclose(rows, prepared.rows(split=split), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("n_layers", [4, 8])
def test_covectors_cross_once_per_boundary_and_not_per_layer(n_layers: int):
    """Up to the last layer, and down from there: positions, covectors, and what they have read."""
    with card() as watch:
        subject = over((CARD, SECOND), "llama", num_hidden_layers=n_layers)
        frozen, dictionary = subject.frozen, toy_dictionary(n_layers=n_layers)
        found = prepare(subject, beside(subject, dictionary), tiny_prompt())
        attention = Attention(frozen, found.local.recording, found.sources.first)
        features = found.local.features.covectors(np.arange(len(found.local.features)))
        targets = Covectors.joined([found.local.targets.covectors, features])
        targets = targets.take(np.argsort(-targets.level, kind="stable"))
        watch.clear()
        sweep_block(frozen, attention, found.sources, ForwardPrefix(), targets)
    above = int((targets.layer >= n_layers // 2).sum())
    swept = int(targets.pos.max()) + 1 - found.sources.first
    columns = found.sources.columns_below(n_layers)
    assert crossings(watch) == {(0, 1): 1, (1, 0): 3}
    assert watch.crossed["start", SECOND, CARD] == 8 * (
        len(targets.pos) + above * (swept * frozen.d_model + columns)
    )


def test_what_several_blocks_are_given_is_copied_to_a_card_once():
    """Masks, positions and rotations, beside the residual."""
    counts: list[dict[tuple[int | None, int | None], int]] = []
    for n_layers in (4, 8):
        with card() as watch:
            subject = over((CARD, SECOND), "gemma-2", num_hidden_layers=n_layers)
            watch.clear()
            record(subject.frozen, tiny_prompt())
            counts.append(crossings(watch))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("n_layers", [4, 8])
def test_the_host_waits_no_more_often_in_a_sweep_over_two_cards(n_layers: int):
    """So a card that has passed a group of targets on begins the next group by itself."""
    waits: list[dict[str, int]] = []
    for ways in ((CARD,), (CARD, SECOND)):
        with card() as watch:
            subject = over(ways, "llama", num_hidden_layers=n_layers)
            dictionary = beside(subject, toy_dictionary(n_layers=n_layers, cross_layer=True))
            watch.clear()
            trace(tiny_prompt(), subject, dictionary, SETTINGS, watch.progress)
        counted: Counter[str] = Counter()
        for (stage, _), count in watch.waits.items():
            counted[stage] += count
        waits.append(counted)
    one, two = waits
    assert two["sweep"] == one["sweep"]
    # Features are found on each card: one answer of each.
    assert two["features"] == one["features"] + 1
    assert {**two, "record": 0, "features": 0} == {**one, "record": 0, "features": 0}


def test_devices_together_hold_what_each_has_room_for(monkeypatch: pytest.MonkeyPatch):
    free = {CARD: 900, SECOND: 100}
    monkeypatch.setattr(
        circuits.attribution.cost, "free_device_bytes", lambda device, _: free[device]
    )
    with card():
        frozen = over((CARD, SECOND), "llama", num_hidden_layers=4).frozen
        assert free_for_blocks(frozen) == 200
        with pytest.raises(DoesNotFit, match="Recording a prompt of 6 tokens"):
            trace(tiny_prompt(), Subject(frozen, toy_tokenizer(), identity(frozen)), Neurons(9))


def test_what_needs_one_device_refuses_several():
    with card():
        frozen = over((CARD, SECOND), "llama").frozen
        asked = Run(random_corpus(), TrainSettings(), DocumentOpening(bos=True), "run")
        with pytest.raises(DeviceError, match=r"Training needs .* lies on card:0, card:1: give"):
            stream_of(Subject(frozen, toy_tokenizer(), identity(frozen)), asked)
        one = over((SECOND,), "llama").frozen
        assert stream_of(Subject(one, toy_tokenizer(), identity(one)), asked)


def test_a_model_that_others_have_placed_is_traced_as_it_lies():
    """With hooks around the forward methods of its parts, as accelerate has them."""
    own = traced_over((CARD,), "gemma-3", toy_dictionary())
    with card():
        model = tiny_model("gemma-3")
        where = {"model.embed_tokens": CARD, "lm_head": CARD, "model.norm": SECOND}
        where |= {"model.rotary_emb": CARD}
        where |= {f"model.layers.{n}": one for n, one in enumerate((SECOND, CARD, SECOND))}
        for path, device in where.items():
            dispatch(part(model, path), device)
        frozen = FrozenModel(model)
        subject = Subject(frozen, toy_tokenizer(), identity(frozen))
        found = trace(tiny_prompt(), subject, beside(subject, toy_dictionary()), SETTINGS)
    assert subject.frozen.device == SECOND
    assert_same(found, own)


def identity(frozen: FrozenModel) -> ModelIdentity:
    return ModelIdentity(name="tiny", architecture="tiny", n_layers=frozen.n_layers)


def dispatch(module: nn.Module, device: torch.device) -> None:
    """Place a module, and move what its forward method is given."""
    module.to(device)
    forward = module.forward

    def moving(_: nn.Module, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map_only(torch.Tensor, lambda x: x.to(device), (args, kwargs))
        return forward(*args, **kwargs)

    module.forward = MethodType(moving, module)


def test_a_block_on_two_devices_or_on_none_is_refused():
    with card():
        model = tiny_model("gemma-3")
        model.model.layers[1].mlp.to(SECOND)
        with pytest.raises(DeviceError, match=r"Block 1 lies on several devices \(card:1, cpu\)"):
            FrozenModel(model)
    model = tiny_model("gemma-3")
    model.model.layers[2].to("meta")
    with pytest.raises(DeviceError, match="weights of block 2 are on no device"):
        FrozenModel(model)


def test_blocks_are_divided_in_order_by_bytes():
    assert divided(0, [1] * 6, 0, [1.0, 1.0, 1.0]) == [0, 0, 1, 1, 2, 2]
    assert divided(4, [1] * 6, 0, [1.0, 1.0]) == [0, 1, 1, 1, 1, 1]
    assert divided(0, [1] * 6, 0, [2.0, 1.0]) == [0, 0, 0, 0, 1, 1]
    assert divided(90, [1] * 3, 0, [1.0, 1.0, 1.0]) == [0, 1, 2]
    assert divided(0, [1] * 3, 90, [1.0, 1.0, 1.0]) == [0, 1, 2]


def test_what_is_tied_to_the_embeddings_lies_with_them():
    with card():
        apart, tied = over((CARD, SECOND), "llama"), over((CARD, SECOND), "gemma-3")
    places = [one.frozen.unembedding.device for one in (apart, tied)]
    assert places == [SECOND, CARD]


def test_as_few_devices_are_taken_as_a_model_needs(monkeypatch: pytest.MonkeyPatch):
    size = sum(one.nbytes for one in tiny_model("llama").parameters())
    for free, expected in ((2 * size, {CARD}), (size, {CARD, SECOND})):
        monkeypatch.setattr(
            circuits.model.placement, "free_device_bytes", lambda _, free=free: free
        )
        with card():
            model = tiny_model("llama")
            place(model, (CARD, SECOND, HOST), as_few=True)
        assert {one.device for one in model.parameters()} == expected


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ("gpu", "The device 'gpu' is not available: choose auto or cpu"),
        ("cuda:63,cuda:64", "The device 'cuda:63' is not available"),
        ("cpu,", "The devices 'cpu,' are not a list of devices: give auto alone"),
        ("cpu,auto", "The devices 'cpu,auto' are not a list of devices"),
        ("cpu,cpu", "The devices 'cpu,cpu' name one device twice"),
        ("meta", "The device 'meta' is not available"),
    ],
)
def test_devices_that_cannot_be_are_refused(names: str, sentence: str):
    with pytest.raises(DeviceError, match=sentence):
        usable_devices(names)
    with pytest.raises(DeviceError, match=sentence):
        read_subject("atlas-small", device=names)


def test_more_devices_than_blocks_are_refused():
    devices = [torch.device("card", n) for n in range(4)]
    with pytest.raises(DeviceError, match="has 3 blocks, fewer than the 4 devices given"):
        place(tiny_model("llama"), devices)
