from __future__ import annotations

import numpy as np
import pytest
import torch
from card import CARD, card, on_card

import circuits.attribution.estimate
import circuits.attribution.rows
from circuits.attribution.cost import Plan
from circuits.attribution.estimate import Stages, begin, estimate
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.rows import Sweeper, expand, prepare_sweep
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.neurons import Neurons
from circuits.model.subject import Subject
from circuits.pipe import estimate_trace, trace
from circuits.recording.record import record
from tests.tiny import tiny_prompt, tiny_subject, toy_dictionary

EVERYTHING = Expansion(everything=True, kept_share=1.0)


def prepared(subject: Subject, *, cross_layer: bool = False) -> Sweeper:
    source = toy_dictionary(cross_layer=cross_layer)
    local = local_replacement(tiny_prompt(), subject, source, TargetSettings())
    return prepare_sweep(local)


def plan(sweeper: Sweeper, expansion: Expansion) -> Plan:
    with torch.inference_mode():
        return begin(sweeper, expansion).plan


def test_more_rows_cost_more(gemma: Subject):
    sweeper = prepared(gemma)
    some, every = plan(sweeper, Expansion(max_features=5)), plan(sweeper, EVERYTHING)
    assert some.limit == 5
    assert every.limit == len(sweeper.local.features)
    assert float(every.rows.sum()) == every.limit + len(sweeper.local.targets.described)
    assert some.flops < every.flops
    assert some.need().host < every.need().host
    assert every.limited(5).limit == 5


def test_rows_are_foreseen_in_the_order_in_which_they_come(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    """Of features that the first ones lead to, no others get rows."""
    for module in (circuits.attribution.rows, circuits.attribution.estimate):
        monkeypatch.setattr(module, "FIRST_ROUND", 8)
    sweeper = prepared(gemma)
    expansion = Expansion(max_features=30)
    foreseen = plan(sweeper, expansion).order
    with torch.inference_mode():
        rows = expand(sweeper, expansion)
    got = np.flatnonzero(rows.expanded()[sweeper.sources.feature_column])
    assert len(foreseen) == len(got) == 30
    assert len(np.intersect1d(foreseen, got)) >= 25


@pytest.mark.parametrize("cross_layer", [False, True])
def test_all_edges_are_foreseen(gemma: Subject, cross_layer: bool):
    source = toy_dictionary(cross_layer=cross_layer)
    said = estimate_trace(tiny_prompt(), gemma, source, TraceSettings(expansion=EVERYTHING))
    graph = trace(tiny_prompt(), gemma, source, TraceSettings(expansion=EVERYTHING))
    assert said.rows == graph.expanded.sum()
    # Biases are not foreseen, nor that a sliding window of three tokens hides some sources.
    assert graph.responses is not None
    kept = graph.weights.nnz + graph.responses.weights.nnz
    assert 0.9 * kept <= said.edges <= 1.1 * kept


def test_seconds_are_those_of_all_stages_with_all_rows(gemma: Subject):
    sweeper = prepared(gemma)
    with torch.inference_mode():
        begun = begin(sweeper, EVERYTHING)._replace(sweep_seconds=7.0)
    seconds = {"record": 2.0, "sweep": 0.1, "label": 3.0, "graph": 0.5}
    found = estimate(begun, seconds, toy_dictionary())
    growing = 0.5 * begun.plan.edges / begun.rows.n_edges
    assert found.seconds == pytest.approx(12.0 + growing)
    assert found.gflops_per_second == pytest.approx(begun.plan.flops / 7e9)
    assert found.peak_bytes > found.edges * 24  # rows and the matrix, in float64


@pytest.mark.parametrize("rate", [4e13, 1e8])
@pytest.mark.parametrize("everything", [False, True])
def test_seconds_on_a_card_are_foreseen(
    everything: bool, rate: float, monkeypatch: pytest.MonkeyPatch
):
    """By the card's own clock, if launches take the time and if products do."""
    monkeypatch.setattr("card.RATE", rate)
    expansion = Expansion(max_features=80, everything=everything)
    for module in (circuits.attribution.rows, circuits.attribution.estimate):
        monkeypatch.setattr(module, "FIRST_ROUND", 20)
    settings = TraceSettings(expansion=expansion, labels=8)
    with card() as watch:
        monkeypatch.setattr(Stages, "now", lambda _: sum(watch.seconds.values()))
        held, placed = on_card(tiny_subject("gemma-3")), toy_dictionary().on(CARD)
        trace(tiny_prompt(), held, placed, settings)
        said = estimate_trace(tiny_prompt(), held, placed, settings)
        watch.clear()
        trace(tiny_prompt(), held, placed, settings)
        taken = sum(watch.seconds.values())
    assert 0.7 < said.seconds / taken < 1.3


def test_stages_are_timed_as_they_are_reported(monkeypatch: pytest.MonkeyPatch):
    ticks = iter([1.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    reported: list[str] = []
    stages = Stages(torch.device("cpu"), lambda stage, *_: reported.append(stage))
    for stage in ("one", "one", "two", "end"):
        stages(stage, 0, 1)
    assert dict(stages.seconds) == {"": 1.0, "one": 3.0, "two": 4.0}
    assert reported == ["one", "one", "two", "end"]


def test_a_trace_without_features_has_an_estimate(gemma: Subject):
    settings = TraceSettings(expansion=Expansion(max_features=0))
    found = estimate_trace(tiny_prompt(), gemma, toy_dictionary(), settings)
    assert found.rows == len(
        trace(tiny_prompt(), gemma, toy_dictionary(), settings).provenance.targets
    )
    assert found.seconds > 0


def test_neurons_need_room_in_every_layer(dense_subject: Subject):
    frozen = dense_subject.frozen
    layers = Neurons().activate(frozen, *_recorded(dense_subject)).rows.layers  # pyright: ignore[reportAttributeAccessIssue]
    held = sum(
        layer.activation.numel() + sum(branch.factor.numel() for branch in layer.branches)
        for layer in layers
    )
    assert held <= Neurons().peak_values(frozen, 6) <= 2 * held


def _recorded(subject: Subject):
    recording = record(subject.frozen, tiny_prompt())
    targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
    return recording, targets.covectors
