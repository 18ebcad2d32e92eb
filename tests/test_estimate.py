from __future__ import annotations

import pytest

import circuits.attribution.cost
import circuits.attribution.estimate
from circuits.attribution.estimate import estimate
from circuits.attribution.local_replacement import LocalReplacement, local_replacement
from circuits.attribution.rows import Expansion
from circuits.attribution.sources import build_sources
from circuits.attribution.targets import TargetSettings, read_targets
from circuits.features.neurons import Neurons
from circuits.model.subject import Subject
from circuits.pipe import TraceSettings, estimate_trace, trace
from circuits.recording.record import record
from tests.tiny import tiny_prompt, toy_dictionary

EVERYTHING = Expansion(everything=True, kept_share=1.0)


def prepared(subject: Subject, *, cross_layer: bool = False) -> LocalReplacement:
    source = toy_dictionary(cross_layer=cross_layer)
    return local_replacement(tiny_prompt(), subject, source, TargetSettings())


def without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave only sources and edges, which on a tiny model are smaller than any block."""
    monkeypatch.setattr(circuits.attribution.cost, "BLOCK_WEIGHTS", 0)
    monkeypatch.setattr(circuits.attribution.cost, "block_positions", lambda *_: 0.001)
    monkeypatch.setattr(circuits.attribution.estimate, "held_bytes", lambda: 0)


def test_more_rows_cost_more(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.attribution.estimate, "held_bytes", lambda: 10**9)
    local = prepared(gemma)
    some = estimate(local, Expansion(max_features=5))
    every = estimate(local, Expansion(everything=True))
    assert some.rows == 5 + len(local.targets.described)
    assert every.rows == len(local.features) + len(local.targets.described)
    assert some.flops < every.flops
    assert 10**9 < some.peak_bytes < every.peak_bytes


@pytest.mark.parametrize("cross_layer", [False, True])
def test_all_edges_are_foreseen(gemma: Subject, cross_layer: bool):
    source = toy_dictionary(cross_layer=cross_layer)
    said = estimate_trace(tiny_prompt(), gemma, source, TraceSettings(expansion=EVERYTHING))
    graph = trace(tiny_prompt(), gemma, source, TraceSettings(expansion=EVERYTHING))
    # Biases are not foreseen, nor that a sliding window of three tokens hides some sources.
    assert 0.9 * graph.weights.nnz <= said.edges <= 1.1 * graph.weights.nnz


def test_labels_and_what_came_before_take_time(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.attribution.estimate, "matrix_product_rate", lambda *_: 1e9)
    local = prepared(gemma)
    plain = estimate(local, EVERYTHING)
    labelled = estimate(local, EVERYTHING, labels=10)
    later = estimate(local, EVERYTHING, before=2.0)
    assert plain.seconds < labelled.seconds < later.seconds
    assert later.seconds == pytest.approx(plain.seconds + 3.0)


@pytest.mark.parametrize("cross_layer", [False, True])
def test_room_for_sources_is_what_they_take(
    gemma: Subject, cross_layer: bool, monkeypatch: pytest.MonkeyPatch
):
    local = prepared(gemma, cross_layer=cross_layer)
    without_blocks(monkeypatch)
    monkeypatch.setattr(circuits.attribution.cost, "MOST_FORWARD", 0)
    none = Expansion(max_features=0)
    said = estimate(local, none)
    sources = build_sources(local)
    vectors = sum(layer.tiles.vectors.numel() for layer in sources.layers)
    patterns = sum(block.pattern.numel() for block in local.recording.blocks)
    least = 8 * (vectors + patterns) + 24 * said.edges
    assert least <= said.peak_bytes <= 1.5 * least


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
