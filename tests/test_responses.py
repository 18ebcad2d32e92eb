"""Rows of norms and gates, flows through attention, and what is predicted with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

import circuits.attribution.targets
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.sources import build_sources
from circuits.attribution.targets import final_norms
from circuits.attribution.trace_settings import Direction, TargetSettings, TraceSettings
from circuits.features.neurons import Neurons
from circuits.features.transcoder import JumpReLU, ReLU, TopK
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import Prompt
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import AttributionGraph, Intervention, NodeId, NodeKind, Regime
from graphs.core.graph import row_sizes, row_sums
from graphs.core.responses import Responses
from graphs.interventions.changes import Change
from graphs.interventions.predict import predict
from tests.conftest import cached_subject, skip_without_neurons
from tests.graph_oracles import make_graph, responding
from tests.oracles import Oracle, Run, gate_and_up
from tests.test_adjoint import DICTIONARIES
from tests.test_intervene import SETTINGS, source_of
from tests.tiny import DENSE, tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

EVERYTHING = replace(SETTINGS, inner_rows=10**6)


def with_responses(
    subject: Subject, kind: str, settings: TraceSettings = EVERYTHING
) -> tuple[AttributionGraph, Responses]:
    source = source_of(kind)
    skip_without_neurons(subject, source)
    graph = trace(tiny_prompt(), subject, source, settings)
    assert graph.responses is not None
    return graph, graph.responses


def oracle_of(subject: Subject, kind: str, prompt: Prompt | None = None) -> Oracle:
    parts = (prompt or tiny_prompt(), subject, source_of(kind), SETTINGS.targets)
    local = local_replacement(*parts)
    return Oracle(
        subject.frozen,
        local.recording,
        DICTIONARIES[kind],
        local.features,
        build_sources(local),
        local.targets,
    )


def value_of(oracle: Oracle, node: NodeId, run: Run, scale: torch.Tensor) -> torch.Tensor:
    """What a row of the responses is of, but for the random ones of the final norm."""
    frozen, recording = oracle.frozen, oracle.recording
    layer, pos, index = node.layer, node.pos, node.index
    assert layer is not None
    assert pos is not None
    assert index is not None
    if node.kind == NodeKind.GATE:
        bias = scale[oracle.sources.bias_column + layer]
        mlp = frozen.modules[layer].get_submodule(frozen.layout.mlp)
        read = oracle._read(layer, run.reads[layer], bias)[pos]
        return gate_and_up(mlp, frozen.layout, read[None], bias)[0][0, index]
    if node.kind == NodeKind.ATTENTION_NORM:
        own, moving = oracle.entering[layer][pos], run.entering[layer][pos]
    elif layer < frozen.n_layers:
        own, moving = recording.blocks[layer].mlp_residual[pos], run.reads[layer][pos]
    else:
        own, moving = recording.final_residual[pos], run.final[pos]
    return (own - own.mean() if frozen.layout.centred else own) @ moving


def is_random(node: NodeId) -> bool:
    return node.kind == NodeKind.NORM and node.index != 0


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_rows_of_norms_and_gates_are_the_jacobian(subject: Subject, kind: str):
    _, responses = with_responses(subject, kind)
    oracle = oracle_of(subject, kind)
    nodes = [node for node in responses.nodes if not is_random(node)]
    assert {node.kind for node in nodes} >= {NodeKind.NORM}

    def values(scale: torch.Tensor) -> torch.Tensor:
        run = oracle.run(scale)
        return torch.stack([value_of(oracle, node, run, scale) for node in nodes])

    rows = [row for row, node in enumerate(responses.nodes) if not is_random(node)]
    one = torch.ones(len(oracle.sources.nodes), dtype=torch.float64)
    np.testing.assert_allclose(values(one), responses.nodes.value[rows], **EXACT)
    found = responses.weights.toarray()[rows]
    np.testing.assert_allclose(found[:, : len(one)], torch.func.jacrev(values)(one), **EXACT)
    assert not found[:, len(one) :].any()
    sums = responses.weights.sum(axis=1) + responses.dropped
    np.testing.assert_allclose(sums, responses.nodes.value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_random_rows_are_of_an_orthonormal_basis(subject: Subject, kind: str):
    """With as many as there are dimensions, squares of all rows are those of what a node writes."""
    width = subject.frozen.d_model
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LEAST_RANDOM", "MOST_RANDOM"):
            patch.setattr(circuits.attribution.targets, name, width)
        _, responses = with_responses(subject, kind, SETTINGS)
    oracle = oracle_of(subject, kind)
    one = torch.ones(len(oracle.sources.nodes), dtype=torch.float64)
    (norm,) = responses.norms

    def final(scale: torch.Tensor) -> torch.Tensor:
        return oracle.run(scale).final[norm.pos]

    written = torch.func.jacrev(final)(one)  # (d_model, source)
    if subject.frozen.layout.centred:
        written = written - written.mean(0)
    rows = responses.rows_of(norm)
    found = responses.weights.toarray()[rows][:, : len(one)]
    assert len(found) - 1 == norm.dimensions
    np.testing.assert_allclose(np.square(found[1:]).sum(0), written.square().sum(0), **EXACT)
    np.testing.assert_allclose(
        np.square(responses.nodes.value[rows[1:]]).sum(), responses.nodes.value[rows[0]], **EXACT
    )


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_flows_are_what_a_scale_of_the_values_changes(subject: Subject, kind: str):
    graph, responses = with_responses(subject, kind)
    oracle = oracle_of(subject, kind)
    scale = torch.ones(len(oracle.sources.nodes), dtype=torch.float64)
    behind = [node for node in responses.nodes if not is_random(node)]
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))

    def values(through: torch.Tensor) -> torch.Tensor:
        run = oracle.run(scale, through)
        inner = [value_of(oracle, node, run, scale) for node in behind]
        return torch.stack([*run.values, *oracle._outputs(run.final, scale), *inner])

    shape = (subject.frozen.n_layers, len(oracle.recording.prompt))
    jacobian = torch.func.jacrev(values)(torch.ones(shape, dtype=torch.float64))
    own = [row for row, node in enumerate(responses.nodes) if not is_random(node)]
    rows = [*features, *graph.target_rows(), *(len(graph) + np.array(own, dtype=int))]
    norms = [node for node in responses.nodes if node.kind == NodeKind.ATTENTION_NORM]
    norms_there = [norm for norm in responses.norms if norm.before == "attention"]
    assert len(norms) == len(norms_there)
    for column, node in enumerate(norms):
        assert responses.rows_of(norms_there[column]) == [list(responses.nodes).index(node)]
        expected = jacobian[:, node.layer, node.pos]
        np.testing.assert_allclose(responses.flows[rows, column], expected, **EXACT)


@pytest.mark.parametrize("kind", ["per layer", "cross-layer, skip", "neurons"])
def test_the_final_norm_is_predicted_exactly(
    subject: Subject, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """With the rows of a whole basis, and the model held up to its last block."""
    for name in ("LEAST_RANDOM", "MOST_RANDOM"):
        monkeypatch.setattr(circuits.attribution.targets, name, 64)
    graph, _ = with_responses(subject, kind, SETTINGS)
    experiment = prepare(graph, subject, source_of(kind))
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    chosen = features[np.linspace(0, len(features) - 1, 5).astype(int)].tolist()
    sets = [[row] for row in chosen] + [chosen, features.tolist()]
    made = [
        Intervention("", tuple(Change(graph.nodes[row], factor) for row in rows))
        for rows in sets
        for factor in (0.0, 3.0)
    ]
    last = subject.frozen.n_layers - 1
    outcomes = intervene(experiment, made, Regime.CONSTRAINED, last)
    targets = graph.target_rows()
    size = np.abs(outcomes.measured[:, targets]).max()
    np.testing.assert_allclose(
        outcomes.predicted[:, targets], outcomes.measured[:, targets], rtol=1e-7, atol=1e-9 * size
    )
    # The graph alone holds the norm, which is another number.
    without = replace(graph, responses=None)
    held = predict(without, made, [last] * len(made))[:, targets]
    assert np.abs(held - outcomes.measured[:, targets]).max() > 1e-3 * size


def has_norms_behind(subject: Subject) -> bool:
    layout = subject.frozen.layout
    return layout.post_attention_norm is not None or layout.post_mlp_norm is not None


@pytest.mark.parametrize("name", sorted(DENSE))
def test_small_changes_are_predicted_where_everything_but_patterns_runs(name: str):
    """To first order: all neurons, all norms in front of something, gates, the final norm."""
    subject = cached_subject(name)
    if has_norms_behind(subject):
        pytest.skip("norms behind attention and MLPs are held")
    source = Neurons(max_features=10**6)
    graph = trace(tiny_prompt(), subject, source, EVERYTHING)
    assert graph.responses is not None
    if graph.responses.neurons is None:
        pytest.skip("an activation function that graphs do not know")
    experiment = prepare(graph, subject, source)
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    chosen = features[np.linspace(0, len(features) // 2, 8).astype(int)].tolist()
    step = 1e-5
    made = [Intervention("", (Change(graph.nodes[row], 1 + step),)) for row in chosen]
    outcomes = intervene(experiment, made, Regime.CONSTRAINED)
    for order in ("first", "full"):
        predicted = predict(graph, made, outcomes.through, order) / step
        for rows in (graph.target_rows(), features):
            measured = outcomes.measured[:, rows] / step
            size = np.abs(measured).max(axis=1, keepdims=True)
            size = np.maximum(size, 1e-5 * size.max())  # of changes that are none
            assert (np.abs(predicted[:, rows] - measured) <= 2e-3 * size).all(), order


def test_a_trace_has_no_more_rows_inside_than_it_is_given():
    subject = cached_subject("llama")
    source = Neurons(max_features=40)
    traced = [
        trace(tiny_prompt(), subject, source, replace(SETTINGS, inner_rows=count))
        for count in (0, 7, 10**6)
    ]
    inside: list[list[NodeId]] = []
    for graph in traced:
        assert graph.responses is not None
        final = len(graph.responses.rows_of(graph.responses.norms[0]))
        inside.append(list(graph.responses.nodes)[final:])
    none, few, every = inside
    assert (len(none), len(few)) == (0, 7)
    assert set(few) < set(every)
    assert {node.kind for node in every} == {NodeKind.NORM, NodeKind.ATTENTION_NORM, NodeKind.GATE}
    for graph in traced[1:]:  # no score depends on them
        np.testing.assert_allclose(graph.weights.toarray(), traced[0].weights.toarray(), **EXACT)
        np.testing.assert_array_equal(graph.seed, traced[0].seed)


def test_a_target_that_reads_no_norm_has_no_norm_rows(gemma: Subject):
    vector = torch.randn(subject_width(gemma), dtype=torch.float64)
    settings = replace(
        SETTINGS, targets=TargetSettings(directions=(Direction("probe", vector, layer=1),))
    )
    graph = trace(tiny_prompt(), gemma, source_of("per layer"), settings)
    assert graph.responses is not None
    assert graph.responses.norms == ()
    assert len(graph.responses.nodes) == 0
    assert np.isnan(graph.responses.constant[graph.target_rows()]).all()


def subject_width(subject: Subject) -> int:
    return subject.frozen.d_model


def test_norms_of_final_rows_are_drawn_alike(gemma: Subject):
    """Two prompts of one model, and every device, have the same random covectors."""
    local = local_replacement(tiny_prompt(), gemma, source_of("per layer"), SETTINGS.targets)
    parts = (gemma.frozen, local.recording, local.targets.covectors)
    one, other = (final_norms(*parts, 5)[0].covectors.covector for _ in range(2))
    assert torch.equal(one, other)
    np.testing.assert_allclose(one[1:] @ one[1:].T, np.eye(5), **EXACT)


@pytest.mark.parametrize("nonlinearity", ["relu", "jumprelu", "topk", "largest"])
def test_thresholds_are_where_features_of_the_dictionary_switch_off(
    gemma: Subject, nonlinearity: str
):
    """Of those that keep the largest, at the smallest there; signed ones keep negative values."""
    dictionary = toy_dictionary(nonlinearity="relu" if nonlinearity == "largest" else nonlinearity)
    if nonlinearity == "largest":
        layers = tuple(replace(one, nonlinearity=TopK(5)) for one in dictionary.layers)
        dictionary = replace(dictionary, layers=layers)
    graph = trace(tiny_prompt(), gemma, dictionary, SETTINGS)
    assert graph.responses is not None
    nodes, found = graph.nodes, graph.responses.threshold
    features = np.flatnonzero(nodes.is_kind(NodeKind.FEATURE))
    assert np.isnan(np.delete(found, features)).all()
    for row in features.tolist():
        layer, pos = nodes.layer[row], nodes.pos[row]
        own = dictionary.layers[layer].nonlinearity
        if isinstance(own, JumpReLU):
            expected = float(own.threshold[nodes.index[row]])
        elif isinstance(own, ReLU):
            expected = 0.0
        elif isinstance(own, TopK) and own.signed:
            expected = np.nan
        else:
            here = (nodes.layer == layer) & (nodes.pos == pos) & nodes.is_kind(NodeKind.FEATURE)
            expected = nodes.activation[here].min()
        assert found[row] == pytest.approx(expected, nan_ok=True)


def test_what_pruning_takes_from_rows_is_counted_in_float64():
    graph = make_graph([f"token:{i}@0" for i in range(400)] + ["logit:1@0"], {}, dtype=np.float32)
    rng = np.random.default_rng(0)
    known = responding(graph, rng).responses
    assert known is not None
    large = csr_array((rng.standard_normal((6, 401)) * 1e6).astype(np.float32))
    whole = replace(known, weights=large)
    kept = whole.take(np.arange(0, 401, 3))
    assert kept.weights.dtype == np.float32
    for sums, lost in ((row_sums, "dropped"), (row_sizes, "dropped_absolute")):
        before, after = (sums(one.weights) + getattr(one, lost) for one in (whole, kept))
        np.testing.assert_allclose(after, before, rtol=1e-12)
