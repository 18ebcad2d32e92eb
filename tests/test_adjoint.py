"""Rows of the sweep against the Jacobian of the frozen model, on every architecture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import circuits.attribution.sweep
import circuits.recording.attention
from circuits.attribution.cost import Costs
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.rows import RowTargets, SparseRows, Sweeper, expand
from circuits.attribution.sources import Sources, build_sources
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import Expansion, TargetSettings
from circuits.features.active import FeatureSource
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import WorkingMemory
from circuits.model.frozen import Covectors
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.progress import ignore_progress
from circuits.recording.attention import Attention
from graphs import NodeKind
from tests.conftest import cached_recording, cached_subject, skip_without_neurons
from tests.oracles import Oracle
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

EVERYTHING = Expansion(everything=True, kept_share=1.0)
DICTIONARIES = {
    "per layer": toy_dictionary(),
    "per layer, skip, residual to mlp output": toy_dictionary(
        skip=True, read=ReadPoint.RESIDUAL, write=WritePoint.MLP_OUTPUT
    ),
    "cross-layer, skip": toy_dictionary(cross_layer=True, skip=True),
    "cross-layer, skips to every layer": toy_dictionary(
        cross_layer=True,
        skip=True,
        higher_skips=True,
        read=ReadPoint.NORMALISED,
        write=WritePoint.MLP_OUTPUT,
    ),
    "cross-layer, normalised to mlp output, topk": toy_dictionary(
        cross_layer=True,
        read=ReadPoint.NORMALISED,
        write=WritePoint.MLP_OUTPUT,
        nonlinearity="topk",
    ),
    "neurons": None,
}


@dataclass(frozen=True)
class Prepared:
    """One prompt, ready to be swept."""

    subject: Subject
    local: LocalReplacement
    sources: Sources

    def sweeper(self, split: int = 0) -> Sweeper:
        frozen = self.subject.frozen
        attention = Attention(frozen, self.local.recording, self.sources.first)
        working = WorkingMemory(frozen.device, 2**30)
        return Sweeper(self.local, attention, self.sources, working).split_at(split)

    def rows(self, expansion: Expansion = EVERYTHING, split: int = 0) -> np.ndarray:
        """Dense rows: features in their order, then targets."""
        sweeper = self.sweeper(split)
        rows = expand(sweeper, expansion, ignore_progress)
        n_columns = len(self.sources.nodes)
        order = [*self.sources.feature_column.tolist(), *range(n_columns, rows.n_nodes)]
        return rows.matrix().toarray()[order, :n_columns]


def prepare(subject: Subject, source: FeatureSource, prompt: Prompt) -> Prepared:
    skip_without_neurons(subject, source)
    frozen, recording = subject.frozen, cached_recording(subject.frozen, prompt)
    targets = read_targets(frozen, recording, TargetSettings(max_logits=3), subject.spell)
    features = source.activate(frozen, recording, targets.covectors)
    local = LocalReplacement(frozen, recording, features, targets)
    return Prepared(subject, local, build_sources(local))


def oracle_of(prepared: Prepared, dictionary: TranscoderSet | None) -> Oracle:
    return Oracle(
        prepared.subject.frozen,
        prepared.local.recording,
        dictionary,
        prepared.local.features,
        prepared.sources,
        prepared.local.targets,
    )


def assert_rows_are_the_jacobian(
    subject: Subject, dictionary: TranscoderSet | None, prompt: Prompt
) -> None:
    source = Neurons(max_features=60) if dictionary is None else dictionary
    prepared = prepare(subject, source, prompt)
    oracle = oracle_of(prepared, dictionary)
    scales = torch.ones(len(prepared.sources.nodes), dtype=torch.float64)
    jacobian = torch.func.jacrev(oracle.target_values)(scales)
    values = torch.cat([prepared.local.features.value, prepared.local.targets.value])
    np.testing.assert_allclose(oracle.target_values(scales), values, **EXACT)
    np.testing.assert_allclose(prepared.rows(), jacobian, **EXACT)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_every_edge_is_the_jacobian_of_the_frozen_model(subject: Subject, kind: str):
    assert_rows_are_the_jacobian(subject, DICTIONARIES[kind], tiny_prompt())


@pytest.mark.parametrize("kind", ["per layer", "neurons"])
def test_edges_are_the_jacobian_without_context_only_positions(gemma: Subject, kind: str):
    prompt = tiny_prompt(n_prefix=0)
    assert_rows_are_the_jacobian(gemma, DICTIONARIES[kind], prompt)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_edges_are_the_jacobian_for_a_prompt_of_one_token(gemma: Subject, kind: str):
    prompt = tiny_prompt(ids=(4,), n_prefix=0)
    assert_rows_are_the_jacobian(gemma, DICTIONARIES[kind], prompt)


def test_every_edge_is_a_finite_difference(subject: Subject):
    dictionary = DICTIONARIES["cross-layer, skip"]
    prepared = prepare(subject, dictionary, tiny_prompt(ids=(1, 5, 9)))
    oracle = oracle_of(prepared, dictionary)
    one, step = torch.ones(len(prepared.sources.nodes), dtype=torch.float64), 0.5
    rows = prepared.rows()
    for column, direction in enumerate(torch.eye(len(one), dtype=torch.float64)):
        above = oracle.target_values(one + step * direction)
        below = oracle.target_values(one - step * direction)
        np.testing.assert_allclose(rows[:, column], (above - below) / (2 * step), **EXACT)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_rows_sum_to_their_targets_own_values(subject: Subject, kind: str):
    source = DICTIONARIES[kind] or Neurons(max_features=60)
    prepared = prepare(subject, source, tiny_prompt())
    values = torch.cat([prepared.local.features.value, prepared.local.targets.value])
    np.testing.assert_allclose(prepared.rows().sum(1), values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "sizes",
    [
        {"BLOCK_POSITIONS": 1, "CACHE_POSITIONS": 1},
        {"BLOCK_POSITIONS": 40, "CACHE_POSITIONS": 7, "KEY_CHUNK": 1},
        {"CACHE_POSITIONS": 20, "KEY_CHUNK": 4, "MOST_WASTE": 9.0},
        {"BLOCK_WEIGHTS": 400},
    ],
)
def test_blocks_and_chunks_change_nothing(
    subject: Subject, sizes: dict[str, float], monkeypatch: pytest.MonkeyPatch
):
    prepared = prepare(subject, DICTIONARIES["cross-layer, skip"], tiny_prompt())
    before = prepared.rows()
    for name, size in sizes.items():
        for module in (circuits.attribution.sweep, circuits.recording.attention):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, size)
    np.testing.assert_allclose(prepared.rows(), before, **EXACT)


def test_targets_that_stop_higher_up_are_swept_apart(gemma: Subject):
    prepared = prepare(gemma, DICTIONARIES["per layer"], tiny_prompt())
    features = prepared.local.features
    every = np.arange(len(features))
    places = features.on_host
    covectors = Covectors(places.layer, places.pos, features.encoder(every), np.zeros(len(every)))
    blocks = circuits.attribution.sweep.blocks_of(covectors, prepared.sources, split=1, workers=1)
    assert sorted(np.concatenate(blocks).tolist()) == every.tolist()
    low = [set((places.layer[block] < 1).tolist()) for block in blocks]
    assert sorted(map(sorted, {frozenset(found) for found in low})) == [[False], [True]]


def test_nothing_is_cut_where_skips_lead_to_higher_layers(gemma: Subject):
    dictionary = DICTIONARIES["cross-layer, skips to every layer"]
    prepared = prepare(gemma, dictionary, tiny_prompt())
    costs = Costs(prepared.local)
    assert costs.crossing
    costs.of_rows = lambda rows, split=0: 100.0 - split  # higher would be cheaper
    assert costs.best_split(costs.features) == 0
    prepared = prepare(gemma, DICTIONARIES["cross-layer, skip"], tiny_prompt())
    assert not Costs(prepared.local).crossing


@pytest.mark.parametrize("kind", [kind for kind in DICTIONARIES if "every layer" not in kind])
def test_where_targets_and_sources_meet_changes_nothing(subject: Subject, kind: str):
    source = DICTIONARIES[kind] or Neurons(max_features=60)
    prepared = prepare(subject, source, tiny_prompt())
    np.testing.assert_allclose(prepared.rows(split=2), prepared.rows(), **EXACT)


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "gpt-neox"])
@pytest.mark.parametrize("split", [1, 3])
@pytest.mark.parametrize("n_prefix", [0, 2])
def test_they_meet_at_any_layer_behind_any_context(name: str, split: int, n_prefix: int):
    prompt = tiny_prompt(n_prefix=n_prefix)
    prepared = prepare(cached_subject(name), DICTIONARIES["cross-layer, skip"], prompt)
    np.testing.assert_allclose(prepared.rows(split=split), prepared.rows(), **EXACT)


def test_uneven_positions_are_packed_into_several_tiles(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    before = prepare(gemma, DICTIONARIES["per layer"], tiny_prompt()).rows()
    monkeypatch.setattr("circuits.features.hook_points.TILE_WIDTH", 3)
    monkeypatch.setattr("circuits.features.hook_points.MOST_PADDING", 1)
    prepared = prepare(gemma, DICTIONARIES["per layer"], tiny_prompt())
    assert not prepared.sources.layers[0].tiles.one_per_position
    np.testing.assert_allclose(prepared.rows(), before, **EXACT)


def test_the_order_of_targets_changes_nothing(gemma: Subject):
    prepared = prepare(gemma, DICTIONARIES["per layer"], tiny_prompt())
    sources, features, sweeper = prepared.sources, prepared.local.features, prepared.sweeper()
    every, places = np.arange(len(features)), features.on_host
    covectors = Covectors(places.layer, places.pos, features.encoder(every), np.zeros(len(every)))
    found = []
    for order in (every, every[::-1].copy()):
        rows = SparseRows(len(sources.nodes), 1.0, sources.feature_column)
        nodes = sources.feature_column
        targets = RowTargets(covectors, nodes, features.value, features.constant).take(order)
        sweeper.add(targets, rows, lambda _: None)
        found.append(rows.matrix().toarray())
    np.testing.assert_allclose(found[1], found[0], **EXACT)


def test_edges_through_a_sliding_window_end_at_the_window(gemma: Subject):
    prepared = prepare(gemma, toy_dictionary(), tiny_prompt())
    nodes, features = prepared.sources.nodes, prepared.local.features
    rows = prepared.rows()
    # Layers 0 and 1 see three positions: five back is out of reach for layer 1, three for layer 0.
    reach = {0: 2, 1: 4}
    tokens = np.flatnonzero(nodes.index >= 0)[: len(prepared.local.recording.prompt)]
    for feature in range(len(features)):
        layer, pos = int(features.layer[feature]), int(features.pos[feature])
        if layer in reach:
            beyond = tokens[: max(0, pos - reach[layer])]
            assert not rows[feature, beyond].any()
            assert rows[feature, tokens[max(0, pos - reach[layer])]] != 0


def test_targets_see_no_later_position_and_no_higher_layer(subject: Subject):
    prepared = prepare(subject, toy_dictionary(cross_layer=True), tiny_prompt())
    nodes, features = prepared.sources.nodes, prepared.local.features
    rows = prepared.rows()[: len(features)]
    later = nodes.pos[None] > features.pos.numpy()[:, None]
    placed = nodes.is_kind(NodeKind.FEATURE, NodeKind.ERROR)
    higher = placed[None] & (nodes.layer[None] >= features.layer.numpy()[:, None])
    assert not rows[later | higher].any()
    assert rows[~(later | higher)].any()


def test_repeated_tokens_are_sources_of_their_own(gemma: Subject):
    prepared = prepare(gemma, toy_dictionary(), tiny_prompt(ids=(1, 5, 5, 5)))
    rows = prepared.rows()
    assert len(set(rows[-1, 1:4].tolist())) == 3


def test_zero_active_features_leave_errors_and_tokens(subject: Subject):
    dictionary = toy_dictionary(nonlinearity="relu")
    silent = tuple(
        replace(layer, encoder_bias=torch.full_like(layer.encoder_bias, -1e6))
        for layer in dictionary.layers
    )
    prepared = prepare(subject, replace(dictionary, layers=silent), tiny_prompt())
    assert len(prepared.local.features) == 0
    np.testing.assert_allclose(prepared.rows().sum(1), prepared.local.targets.value, **EXACT)


def test_a_per_layer_set_is_a_cross_layer_set_that_writes_to_its_own_layer():
    subject = cached_subject("llama")
    per_layer = toy_dictionary()
    padded = tuple(
        replace(
            layer,
            decoders=(*layer.decoders, *[torch.zeros(20, 16).double()] * (2 - number)),
        )
        for number, layer in enumerate(per_layer.layers)
    )
    alone = prepare(subject, per_layer, tiny_prompt()).rows()
    crossing = prepare(subject, replace(per_layer, layers=padded), tiny_prompt()).rows()
    np.testing.assert_allclose(crossing, alone, **EXACT)
