"""Edges taken apart by head: parts add up, and each is what the edge loses without the head."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from circuits.attention.entries import attention_entries
from circuits.attention.graph_rows import covectors_of
from circuits.attention.head_paths import head_paths
from circuits.attention.heads import heads
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.plain import plain_rows
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.active import FeatureSource
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.interventions.experiment import Experiment, prepare
from circuits.model.architectures import affine, part
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import Hooks, record
from graphs import AttributionGraph, NodeKind, prune, read_graph, write_graph
from graphs.disk.files import GraphFileError
from tests.conftest import cached_subject, skip_without_neurons
from tests.test_any_target import DIRECTIONS, PLACED
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

WHOLE = Expansion(everything=True, kept_share=1.0)
SOURCES = {
    "per layer": toy_dictionary,
    "cross-layer, skips to all layers": lambda: toy_dictionary(
        cross_layer=True,
        skip=True,
        higher_skips=True,
        read=ReadPoint.NORMALISED,
        write=WritePoint.MLP_OUTPUT,
    ),
    "neurons": lambda: Neurons(60),
}


def experiment_with(
    subject: Subject, source: FeatureSource, targets: TargetSettings | None = None, ids=None
) -> Experiment:
    skip_without_neurons(subject, source)
    settings = TraceSettings(targets or TargetSettings(), WHOLE, labels=0)
    graph = trace(tiny_prompt(*(() if ids is None else (ids,))), subject, source, settings)
    return prepare(graph, subject, source)


@cache
def whole_experiment(subject: Subject, kind: str) -> Experiment:
    """With every feature expanded and every edge kept."""
    return experiment_with(subject, SOURCES[kind]())


def without(local: LocalReplacement, removed: list[tuple[int, int]]) -> LocalReplacement:
    """The same with these heads attending to nothing."""
    blocks = list(local.recording.blocks)
    for layer, head in removed:
        mixing = blocks[layer].mixing.clone()
        own = mixing.unflatten(2, (mixing.shape[1], -1))
        kv_head, member = divmod(head, own.shape[3])
        own[kv_head, :, :, member] = 0
        blocks[layer] = replace(blocks[layer], mixing=mixing)
    return replace(local, recording=replace(local.recording, blocks=tuple(blocks)))


@pytest.mark.parametrize("kind", SOURCES)
def test_the_parts_of_every_edge_add_up(subject: Subject, kind: str):
    found = heads(whole_experiment(subject, kind))
    whole = found.bypass + found.parts.sum((1, 2))
    np.testing.assert_allclose(whole, found.weight, **EXACT)
    assert found.miss < 1e-12
    carried = np.abs(found.parts).sum() / (np.abs(found.parts).sum() + np.abs(found.bypass).sum())
    assert 0.05 < carried < 0.95


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "llama", "stablelm-parallel", "gpt-oss"])
def test_what_crosses_a_head_first_is_what_is_lost_without_it(name: str):
    """With no attention below, a row loses just that; biases of values are in the bias itself."""
    experiment = whole_experiment(cached_subject(name), "cross-layer, skips to all layers")
    found, local, graph = heads(experiment), experiment.local, experiment.graph
    targets = np.unique(found.target)
    covectors, _ = covectors_of(experiment, targets)
    row = np.searchsorted(targets, found.target)
    column = experiment.sources.columns(graph.nodes)[found.source]
    own = ~graph.nodes.is_kind(NodeKind.BIAS)[found.source]

    @cache
    def edges(removed: tuple[tuple[int, int], ...]) -> np.ndarray:
        return plain_rows(without(local, list(removed)), covectors).numpy()[row, column]

    for layer in range(3):
        below = tuple((lower, head) for lower in range(layer) for head in range(4))
        for head in range(4):
            lost = edges(below) - edges((*below, (layer, head)))
            np.testing.assert_allclose(found.parts[own, layer, head], lost[own], **EXACT)
    everywhere = tuple((layer, head) for layer in range(3) for head in range(4))
    np.testing.assert_allclose(found.bypass[own], edges(everywhere)[own], **EXACT)


@pytest.mark.parametrize("kind", SOURCES)
def test_all_paths_of_heads_are_a_partition(subject: Subject, kind: str):
    experiment = whole_experiment(subject, kind)
    found = heads(experiment)
    every = np.random.default_rng(0).choice(len(found.weight), 1).tolist()
    every.append(int(np.argmax(np.abs(found.parts).sum((1, 2)))))
    every += np.flatnonzero(experiment.graph.nodes.is_kind(NodeKind.BIAS)[found.source]).tolist()[
        -1:
    ]
    for edge in every:
        ends = int(found.source[edge]), int(found.target[edge])
        told = head_paths(experiment, *ends, most=1000)
        assert 1 < len(told.paths) <= 5**3
        size = sum(abs(path.weight) for path in told.paths)
        assert abs(told.rest) < 1e-12 * size
        first, through = np.zeros((2, *found.parts.shape[1:]))
        for path in told.paths:
            if path.heads:
                first[path.heads[0]] += path.weight
            for head in path.heads:
                through[head] += path.weight
            assert [layer for layer, _ in path.heads] == sorted({layer for layer, _ in path.heads})
        np.testing.assert_allclose(first, found.parts[edge], atol=1e-12 * size)
        np.testing.assert_allclose(through, told.through, atol=1e-12 * size)


def test_the_strongest_paths_come_first_and_the_rest_is_told(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    found = heads(experiment)
    edge = int(np.argmax(np.abs(found.parts).sum((1, 2))))
    ends = int(found.source[edge]), int(found.target[edge])
    whole, few = (head_paths(experiment, *ends, most=most) for most in (1000, 4))
    assert len(few.paths) == 4
    sizes = [abs(path.weight) for path in few.paths]
    assert sizes == sorted(sizes, reverse=True)
    assert few.paths[0].heads == whole.paths[0].heads
    assert few.rest == pytest.approx(few.weight - sum(path.weight for path in few.paths))
    assert few.weight == pytest.approx(found.weight[edge])


def test_heads_are_known_for_every_target_and_position(subject: Subject):
    """Tokens, contrasts, features, neurons, heads and directions, one of them in the prefix."""
    targets = TargetSettings(readings=PLACED, directions=DIRECTIONS)
    source = SOURCES["cross-layer, skips to all layers"]()
    skip_without_neurons(subject, Neurons())
    found = heads(experiment_with(subject, source, targets))
    np.testing.assert_allclose(found.bypass + found.parts.sum((1, 2)), found.weight, **EXACT)


def test_one_token_and_a_prompt_that_is_all_prefix(gemma: Subject):
    for ids, prefix in (((5,), 0), ((1, 5), 2)):
        source = toy_dictionary()
        graph = trace(tiny_prompt(ids, prefix), gemma, source, TraceSettings(labels=0))
        experiment = prepare(graph, gemma, source)
        found = heads(experiment)
        np.testing.assert_allclose(found.bypass + found.parts.sum((1, 2)), found.weight, **EXACT)
        entries = attention_entries(experiment, int(graph.target_rows()[0]))
        assert set(entries.key.tolist()) <= set(range(len(ids)))


def test_a_pruned_graph_keeps_the_parts_of_its_edges(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    small: AttributionGraph = prune(experiment.graph)
    assert len(small) < len(experiment.graph)
    found = heads(prepare(small, gemma, experiment.source))
    whole = heads(experiment)
    nodes, kept = list(experiment.graph.nodes), list(small.nodes)
    ends = zip(whole.target.tolist(), whole.source.tolist(), strict=True)
    place = {(nodes[target], nodes[source]): edge for edge, (target, source) in enumerate(ends)}
    ends = zip(found.target.tolist(), found.source.tolist(), strict=True)
    same = [place[kept[target], kept[source]] for target, source in ends]
    np.testing.assert_allclose(found.parts, whole.parts[same], **EXACT)


def test_float32_is_as_exact_as_it_can_be():
    from circuits import read_source, read_subject
    from circuits.features.files.source import SourceChoice

    subject = read_subject("atlas-small")
    source = read_source(subject, SourceChoice())
    graph = trace("The capital of the state containing Dallas is", subject, source)
    found = heads(prepare(prune(graph), subject, source))
    assert found.parts.dtype == np.float32
    assert 0 < found.miss < 1e-5


def test_entries_are_what_a_target_loses_without_them(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    graph, local = experiment.graph, experiment.local
    target = int(graph.target_rows()[0])
    covectors, _ = covectors_of(experiment, np.array([target]))
    found = attention_entries(experiment, target, 12)
    sizes = np.abs(found.flow)
    np.testing.assert_array_equal(sizes, np.sort(sizes)[::-1])

    def sum_of(changed: LocalReplacement) -> float:
        return float(plain_rows(changed, covectors).sum())

    for layer, head, query, key, flow in zip(
        found.layer, found.head, found.query, found.key, found.flow, strict=True
    ):
        blocks = list(local.recording.blocks)
        mixing = blocks[layer].mixing.clone()
        own = mixing.unflatten(2, (mixing.shape[1], -1))
        kv_head, member = divmod(int(head), own.shape[3])
        own[kv_head, key, query, member] = 0
        blocks[layer] = replace(blocks[layer], mixing=mixing)
        changed = replace(local, recording=replace(local.recording, blocks=tuple(blocks)))
        np.testing.assert_allclose(sum_of(local) - sum_of(changed), flow, rtol=1e-8)
    for layer in range(3):
        lost = sum_of(local) - sum_of(without(local, [(layer, head) for head in range(4)]))
        np.testing.assert_allclose(found.passing[layer], lost, **EXACT)
    place = found.head[0], found.query[0], found.key[0]
    pattern = local.recording.blocks[found.layer[0]].pattern
    assert found.attention[0] == pytest.approx(float(pattern[place]))


@pytest.mark.parametrize("kind", SOURCES)
def test_what_heads_write_adds_up_with_every_trace(subject: Subject, kind: str):
    experiment = whole_experiment(subject, kind)
    graph, features = experiment.graph, experiment.local.features
    assert graph.heads is not None
    assert graph.provenance.checks.heads_max is not None
    assert 0 < graph.provenance.checks.heads_max < 1e-11
    np.testing.assert_array_equal(graph.heads.row, np.flatnonzero(graph.expanded))
    constant = np.concatenate(
        [features.constant.numpy(), experiment.local.targets.constant.numpy()]
    )
    value = graph.nodes.value[graph.heads.row] - constant
    whole = graph.heads.rest + graph.heads.parts.sum((1, 2))
    sizes = np.abs(graph.heads.rest) + np.abs(graph.heads.parts).sum((1, 2))
    assert np.max(np.abs(whole - value) / sizes) < 1e-11
    assert np.abs(graph.heads.parts).sum() > 0.01 * sizes.sum()


def test_all_targets_are_taken_apart_by_what_heads_write(subject: Subject):
    skip_without_neurons(subject, Neurons())
    targets = TargetSettings(readings=PLACED, directions=DIRECTIONS)
    source = SOURCES["cross-layer, skips to all layers"]()
    experiment = experiment_with(subject, source, targets)
    graph, local = experiment.graph, experiment.local
    assert graph.heads is not None
    rows = np.searchsorted(graph.heads.row, graph.target_rows())
    whole = graph.heads.rest + graph.heads.parts.sum((1, 2))
    value = (local.targets.value - local.targets.constant).numpy()
    np.testing.assert_allclose(whole[rows], value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["gemma-3", "gpt-2", "llama", "olmo-2", "gpt-neox"])
def test_what_heads_write_is_what_the_model_multiplies_by_w_o(name: str):
    """Of a logit, at its position, with the norms behind attention and the final one held."""
    subject = cached_subject(name)
    frozen = subject.frozen
    experiment = whole_experiment(subject, "per layer")
    graph, local = experiment.graph, experiment.local
    seen: dict[int, torch.Tensor] = {}
    with Hooks() as hooks:
        for layer, block in enumerate(frozen.blocks):
            output = part(block.modules.attention, frozen.layout.output)
            hooks.before(output, lambda x, layer=layer: seen.update({layer: x[0]}))
        recording = record(frozen, tiny_prompt())
    target = int(graph.target_rows()[0])
    pos, covector = int(graph.nodes.pos[target]), local.targets.covectors.covector[0]
    assert graph.heads is not None
    found = graph.heads.of(target)
    for layer, block in enumerate(frozen.blocks):
        weight, _ = affine(part(block.modules.attention, frozen.layout.output))
        for head in range(4):
            own = slice(head * block.d_head, (head + 1) * block.d_head)
            written = weight[:, own] @ seen[layer][pos, own]
            norm = block.post_attention_norm
            if norm is not None:
                denominator = recording.blocks[layer].post_attention_denominator[pos]
                written = written * norm.gain / denominator
            np.testing.assert_allclose(found[layer, head], float(covector @ written), **EXACT)


def test_what_heads_write_is_kept_in_files_and_parts_of_graphs(gemma: Subject, tmp_path: Path):
    graph = whole_experiment(gemma, "per layer").graph
    assert graph.heads is not None
    again = read_graph(written(graph, tmp_path / "graph.safetensors"))
    assert again.heads is not None
    for name, column in vars(graph.heads).items():
        np.testing.assert_array_equal(getattr(again.heads, name), column)
    small = prune(graph)
    assert small.heads is not None
    for row in np.flatnonzero(small.expanded).tolist():
        same = graph.find(small.nodes[row])
        np.testing.assert_array_equal(small.heads.of(row), graph.heads.of(same))
    first = graph.heads.strongest(int(graph.heads.row[0]), 3)
    parts = np.abs(graph.heads.parts[0]).ravel()
    assert [abs(one) for *_, one in first] == sorted(parts, reverse=True)[:3]
    assert graph.heads.strongest(0, 3) == []  # a token has no row
    bare = trace(tiny_prompt(), gemma, toy_dictionary(), TraceSettings(labels=0, heads=False))
    assert bare.heads is None
    assert bare.provenance.checks.heads_max is None
    assert read_graph(written(bare, tmp_path / "bare.safetensors")).heads is None


def test_damaged_heads_are_refused(gemma: Subject, tmp_path: Path):
    graph = whole_experiment(gemma, "per layer").graph
    path = written(graph, tmp_path / "graph.safetensors")
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    arrays = load_file(path)
    endless = np.full_like(arrays["heads.parts"], np.inf)
    for damage, sentence in (
        ({"heads.rest": None}, "lacks the arrays heads.rest"),
        ({"heads.parts": arrays["heads.parts"][0]}, "heads.parts must be a 3D array"),
        ({"heads.row": arrays["heads.row"][::-1].copy()}, "Rows of heads must ascend"),
        ({"heads.row": arrays["heads.row"] + 10**6}, "A row of heads is outside the graph"),
        ({"heads.parts": endless}, "What a head writes is not finite"),
        ({"heads.rest": arrays["heads.rest"][1:]}, r"heads.\* must have one length"),
        ({"heads.row": arrays["heads.row"].astype(float)}, "heads.row must be a 1D array of I8"),
    ):
        changed = {name: one for name, one in (arrays | damage).items() if one is not None}
        save_file(changed, path, metadata)
        with pytest.raises(GraphFileError, match=sentence):
            read_graph(path)


def written(graph: AttributionGraph, path: Path) -> Path:
    write_graph(graph, path)
    return path
