"""Whole traces on a card that is made up (benchmarks/card.py), and what it counts and refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from card import CARD, OnCard, card, on_card

import circuits.attribution.dense_rows
import circuits.attribution.groups
import circuits.attribution.rows
import graphs
from circuits.attribution.rows import Expansion
from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.features.transcoder import JointTopK
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.pipe import TraceSettings, trace
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


def same_on_the_card(name: str, source: FeatureSource) -> None:
    """A trace on the card has the numbers of the CPU, and the host hardly waits for it.

    How often it does depends neither on layers nor on rows, but for one answer per round.  In the
    forward pass, transformers waits for what it will.
    """
    settings = TraceSettings(expansion=Expansion(max_features=20), labels=8)
    own = trace(tiny_prompt(), cached_subject(name), source, settings)
    with card() as watch:
        held, placed = on_card(tiny_subject(name)), on_the_card(source)
        watch.waits.clear()
        found = trace(tiny_prompt(), held, placed, settings, watch.progress)
    waits = {place: n for place, n in watch.waits.items() if place[0] != "record"}
    assert sum(waits.values()) <= WAITS, waits
    difference = abs(own.weights - found.weights).max() / abs(own.weights.data).max()
    assert difference < 1e-12
    assert np.array_equal(own.expanded, found.expanded)
    assert own.output_tokens == found.output_tokens
    assert graphs.influence(found) == pytest.approx(graphs.influence(own), rel=1e-9)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_is_traced_on_the_card(name: str):
    same_on_the_card(name, DICTIONARIES["cross-layer, skips to every layer"])


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "gpt-neox"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_traced_on_the_card(name: str, source: str):
    same_on_the_card(name, SOURCES[source])


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
    with card():
        for wrong in (lambda x: x + torch.ones(3, 4), lambda x: x[torch.ones(2).long()]):
            with pytest.raises(RuntimeError, match="on the card and on the host"):
                wrong(made())
        with pytest.raises(RuntimeError, match="numpy"):
            made().numpy()


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
    rows, groups = circuits.attribution.rows, circuits.attribution.groups
    monkeypatch.setattr(rows, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(groups, "GROUP_BYTES", 20_000)
    monkeypatch.setattr(circuits.attribution.dense_rows, "THINNED_BYTES", 10_000)
    same_on_the_card("gemma-3", DICTIONARIES["cross-layer, skip"])
