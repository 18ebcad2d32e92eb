"""Graphs with head nodes: rows that add up, and are what the model does with and without a head."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from circuits import ExperimentError, prepare, trace, with_head_nodes
from circuits.attention.graph_rows import covectors_of
from circuits.attention.head_nodes import _Made
from circuits.attention.meetings import LayerMeeting
from circuits.attribution.plain import plain_rows
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.features.neurons import Neurons
from circuits.machine import exactly
from circuits.model.subject import Subject
from graphs import (
    AttributionGraph,
    NodeId,
    NodeKind,
    PruneSettings,
    SelectionError,
    influence,
    prune,
    read_graph,
    summarise,
    write_graph,
)
from graphs.core.graph import row_sums, select_edges
from graphs.disk.files import GraphFileError
from tests.conftest import cached_subject, skip_without_neurons
from tests.test_any_target import DIRECTIONS, PLACED
from tests.test_heads import SOURCES, experiment_with, whole_experiment, without
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

LAYERS, HEADS = 3, 4
EVERY = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]


@cache
def with_heads(subject: Subject, kind: str, *, scores: bool = False) -> AttributionGraph:
    return with_head_nodes(whole_experiment(subject, kind), scores=scores, n_looks=0)


class Swept:
    """A graph with head nodes, beside plain sweeps of its rows without some heads.

    Biases are left out, which attention adds to as well.
    """

    def __init__(self, subject: Subject) -> None:
        experiment = whole_experiment(subject, "per layer")
        old, self.local = experiment.graph, experiment.local
        self.graph = with_heads(subject, "per layer")
        nodes, column = np.flatnonzero(old.expanded), experiment.sources.columns(old.nodes)
        self.covectors, _ = covectors_of(experiment, nodes)
        own = (column >= 0) & ~old.nodes.is_kind(NodeKind.BIAS)
        place = np.array([self.graph.find(node) for node in old.nodes])
        self.rows, self.sources, self.column = place[nodes], place[own], column[own]

    def without(self, removed: list[tuple[int, int]]) -> np.ndarray:
        """The weights of the sources in the rows, with these heads attending to nothing."""
        return plain_rows(without(self.local, removed), self.covectors).numpy()[:, self.column]


@pytest.mark.parametrize("kind", SOURCES)
def test_every_row_adds_up(subject: Subject, kind: str):
    graph = with_heads(subject, kind)
    heads = graph.nodes.is_kind(NodeKind.HEAD)
    assert heads.any()
    assert graph.provenance.checks.conservation_max < 1e-12
    sums = (row_sums(graph.weights) + graph.dropped)[graph.expanded]
    scale = graph.row_totals()[graph.expanded]
    miss = np.abs(sums - graph.nodes.value[graph.expanded])
    assert np.all(miss <= 1e-12 * np.maximum(scale, 1e-300))


@pytest.mark.parametrize("kind", SOURCES)
def test_what_a_node_takes_from_a_head_is_what_the_head_writes_into_it(subject: Subject, kind: str):
    graph, old = with_heads(subject, kind), whole_experiment(subject, kind).graph
    assert old.heads is not None
    seen = 0
    for row, parts in zip(old.heads.row.tolist(), old.heads.parts, strict=True):
        target = graph.find(old.nodes[row])
        pos = int(old.nodes.pos[row])
        weights = graph.weights[[target]].toarray()[0]
        for layer, head in np.ndindex(LAYERS, HEADS):
            node = NodeId(NodeKind.HEAD, layer, pos, head)
            if node in graph:
                np.testing.assert_allclose(weights[graph.find(node)], parts[layer, head], **EXACT)
                seen += 1
    assert seen > 20


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "llama", "stablelm-parallel", "gpt-oss"])
def test_other_weights_are_what_stays_without_attention(name: str):
    """Biases apart, which attention adds to as well."""
    both = Swept(cached_subject(name))
    found = both.graph.weights.toarray()[np.ix_(both.rows, both.sources)]
    np.testing.assert_allclose(found, both.without(EVERY), **EXACT)


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "llama", "gpt-oss"])
def test_a_head_takes_what_its_readers_lose_without_it(name: str):
    """In the last layer only nodes read heads, each with the sign of its part."""
    both, last = Swept(cached_subject(name)), LAYERS - 1
    graph, nothing = both.graph, both.without(EVERY)
    arrived = (influence(graph) + graph.seed)[both.rows] / graph.seed.sum()
    shares = arrived / graph.row_totals()[both.rows]
    seen = 0
    for head in range(HEADS):
        through = both.without([one for one in EVERY if one != (last, head)]) - nothing
        for pos in np.unique(graph.nodes.pos[both.rows]).tolist():
            node = NodeId(NodeKind.HEAD, last, pos, head)
            if node not in graph:
                continue
            row = graph.find(node)
            parts = graph.weights[:, [row]].toarray()[both.rows, 0]
            expected = (shares * np.sign(parts)) @ through
            found = graph.weights[[row]].toarray()[0][both.sources]
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(graph.nodes.value[row], shares @ np.abs(parts), rtol=1e-9)
            seen += 1
    assert seen == HEADS  # at the last position, of which targets are


def test_effects_through_patterns_are_finite_differences_through_the_softmax(subject: Subject):
    """Of the log odds of the key that most is carried from, with the norms of the layer running."""
    experiment = whole_experiment(subject, "per layer")
    graph = with_heads(subject, "per layer", scores=True)
    assert graph.score_weights is not None
    made = _Made(experiment, 100)
    with exactly():
        for layer in reversed(range(LAYERS + 1)):
            made.read_by_nodes(layer)
            if layer < LAYERS:
                made.add_heads(layer)
    weights, seen = graph.score_weights.toarray(), 0
    first = experiment.local.recording.prompt.n_prefix
    for one in sorted(made.heads, key=lambda node: -node.value):
        layer, head, query = one.layer, one.head, one.pos
        if layer != 1 or query < 2:
            continue
        meeting = LayerMeeting(experiment.local.frozen, experiment.local.recording, layer)
        toward = made.read.toward[layer, head, query]
        flow = made.sources.values_toward(layer, head, query, toward)
        key = first + int(flow[first : query + 1].abs().argmax())

        def value(residual, meeting=meeting, one=one, key=key) -> float:
            pattern = meeting.running(residual).pattern[0, one.head, one.pos]
            rivals = pattern[first:].sum() - pattern[key]
            return one.value * float((pattern[key] / rivals).log())

        row = weights[graph.find(NodeId(NodeKind.HEAD, layer, query, head))]
        for source in np.argsort(-np.abs(row))[:3].tolist():
            node = graph.nodes[source]
            if node.kind not in (NodeKind.FEATURE, NodeKind.ERROR):
                continue
            entering = made.sources.sources.layers[node.layer].tiles
            column = int(experiment.sources.columns(graph.nodes.take(np.array([source])))[0])
            place = int((entering.column == column).nonzero())
            vector = entering.vectors.flatten(0, 1)[entering.slot[place]]
            step, change = 1e-6, torch.zeros_like(meeting.residual)
            change[node.pos] = step * vector
            slope = (value(meeting.residual + change) - value(meeting.residual - change)) / 2 / step
            np.testing.assert_allclose(row[source], slope, rtol=1e-5, atol=1e-9)
            seen += 1
        if seen > 2:
            break
    assert seen > 0


def test_heads_come_from_every_query_and_their_values_are_influence(gemma: Subject):
    graph = with_heads(gemma, "per layer")
    heads = graph.nodes.is_kind(NodeKind.HEAD)
    arrived = influence(graph)[heads] / graph.seed.sum()
    np.testing.assert_allclose(graph.nodes.value[heads], arrived, rtol=1e-9)
    few = with_head_nodes(whole_experiment(gemma, "per layer"), most=6, n_looks=0)
    assert few.nodes.is_kind(NodeKind.HEAD).sum() == 6
    assert few.dropped_absolute.sum() > 0
    assert few.provenance.checks.conservation_max < 1e-12


def test_the_strongest_nodes_of_a_summary_have_heads_among_them(gemma: Subject):
    graph = with_heads(gemma, "per layer")
    shown = [line.node for line in summarise(graph).top]
    assert any(name.startswith("head:") for name in shown)
    assert not any(one.node.startswith("head:") for one in summarise(graph).strongest)


def test_rows_keep_as_much_as_the_graphs_rows_kept(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    header = experiment.graph.provenance
    thin = header.model_copy(update={"settings": {**header.settings, "kept_share": 0.9}})
    fewer = with_head_nodes(replace(experiment, graph=replace(experiment.graph, provenance=thin)))
    assert fewer.weights.nnz < 0.8 * with_heads(gemma, "per layer").weights.nnz
    rows = np.flatnonzero(np.diff(fewer.weights.indptr))
    lost = fewer.dropped_absolute[rows] / fewer.row_totals()[rows]
    assert 0 < np.median(lost) <= 0.1  # heads that carry next to nothing are dropped as well
    assert fewer.provenance.checks.conservation_max < 1e-12


def test_files_keep_heads_and_what_makes_them_look(gemma: Subject, tmp_path: Path):
    graph = with_heads(gemma, "per layer", scores=True)
    path = tmp_path / "heads.safetensors"
    write_graph(graph, path)
    again = read_graph(path)
    assert again.nodes.is_kind(NodeKind.HEAD).sum() == graph.nodes.is_kind(NodeKind.HEAD).sum()
    assert again.score_weights is not None
    assert graph.score_weights is not None
    np.testing.assert_array_equal(again.score_weights.toarray(), graph.score_weights.toarray())
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    backwards = {name: arrays[name][::-1].copy() for name in arrays if name.startswith("scores.")}
    for damage, sentence in (
        ({"scores.weight": arrays["scores.weight"][1:]}, r"scores.\* must have one length"),
        (backwards, r"scores.\* must be between nodes, and ascend"),
        ({"scores.target": np.zeros_like(arrays["scores.target"])}, "ascend|Only head nodes"),
        ({"scores.weight": np.full_like(arrays["scores.weight"], np.inf)}, "not finite"),
    ):
        save_file(arrays | damage, path, metadata)
        with pytest.raises(GraphFileError, match=sentence):
            read_graph(path)


def test_patterns_carry_influence_only_if_asked(gemma: Subject):
    graph = with_heads(gemma, "per layer", scores=True)
    assert graph.score_weights is not None
    # A feature that does nothing but make a head look: without its other edges.
    reached = abs(graph.score_weights).sum(0) * graph.nodes.is_kind(NodeKind.FEATURE)
    lost = int(reached.argmax())
    graph = graph.with_weights(select_edges(graph.weights, graph.weights.indices != lost))
    plain = prune(graph, PruneSettings(1.0, 1.0))
    asked = prune(graph, PruneSettings(1.0, 1.0, patterns=True))
    assert graph.nodes[lost] not in plain
    assert graph.nodes[lost] in asked
    assert asked.score_weights is not None
    assert graph.score_weights is not None
    few = prune(graph, PruneSettings(0.6, 0.9, patterns=True)).score_weights
    assert few is not None
    assert 0 < few.nnz < asked.score_weights.nnz == graph.score_weights.nnz
    # Whatever is kept has the weight that it had, in the matrix where it was.
    rows = [graph.find(node) for node in asked.nodes]
    for part, whole in (
        (asked.weights, graph.weights),
        (asked.score_weights, graph.score_weights),
    ):
        kept, old = part.toarray(), whole[rows][:, rows].toarray()
        np.testing.assert_array_equal(kept[kept != 0], old[kept != 0])
    whole = prune(graph, PruneSettings(1.0, 1.0, patterns=True))
    assert whole.weights.nnz == graph.weights[[graph.find(n) for n in whole.nodes]].nnz
    with pytest.raises(SelectionError, match="--attention scores"):
        prune(with_heads(gemma, "per layer"), PruneSettings(patterns=True))


def test_effects_through_head_nodes_are_refused(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    with pytest.raises(ExperimentError, match="without --attention heads"):
        prepare(with_heads(gemma, "per layer"), gemma, experiment.source)


def test_every_target_and_position_has_rows_that_add_up(subject: Subject):
    """Tokens, contrasts, features, neurons, heads and directions, one of them in the prefix."""
    skip_without_neurons(subject, Neurons())
    targets = TargetSettings(readings=PLACED, directions=DIRECTIONS)
    found = with_head_nodes(experiment_with(subject, toy_dictionary(), targets), n_looks=0)
    rows = found.target_rows()
    sums = (row_sums(found.weights) + found.dropped)[rows]
    np.testing.assert_allclose(sums, found.nodes.value[rows], rtol=1e-9, atol=1e-12)
    assert found.provenance.checks.conservation_max < 1e-12


def test_one_token_and_a_prompt_that_is_all_prefix(gemma: Subject):
    for ids, prefix in (((5,), 0), ((1, 5), 2), ((1,), 1)):
        source = toy_dictionary()
        graph = trace(tiny_prompt(ids, prefix), gemma, source, TraceSettings(labels=0))
        found = with_head_nodes(prepare(graph, gemma, source), scores=True)
        assert found.nodes.is_kind(NodeKind.HEAD).any()
        assert found.provenance.checks.conservation_max < 1e-12
        assert found.score_weights is not None
        assert found.score_weights.nnz == 0  # no key competes


def test_targets_without_a_seed_are_refused(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    seedless = replace(experiment.graph, seed=np.zeros(len(experiment.graph)))
    with pytest.raises(ExperimentError, match="No target of the graph has a seed"):
        with_head_nodes(replace(experiment, graph=seedless))
