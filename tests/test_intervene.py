"""Interventions in the model: what is held, what runs, and that graphs predict what is direct."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import circuits.interventions.additions
import circuits.interventions.batches
from circuits.attribution.trace_settings import Expansion, TargetSettings, TraceSettings
from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.interventions.batches import batches
from circuits.interventions.experiment import Experiment, ExperimentError, prepare
from circuits.interventions.intervene import Outcomes, at_targets, generate, intervene
from circuits.model.architectures import part
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import record
from graphs import (
    Add,
    EditError,
    Intervention,
    NodeId,
    NodeKind,
    Regime,
    Scale,
    SetTo,
    Steer,
    intervention,
)
from graphs.interventions.changes import Change
from tests.conftest import cached_subject, skip_without_neurons
from tests.test_adjoint import DICTIONARIES
from tests.test_partial import partial
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

SETTINGS = TraceSettings(
    TargetSettings(max_logits=3), Expansion(everything=True, kept_share=1.0), labels=0
)


def source_of(kind: str) -> FeatureSource:
    dictionary = DICTIONARIES[kind]
    return Neurons(max_features=60) if dictionary is None else dictionary


def experiment_on(subject: Subject, source: FeatureSource) -> Experiment:
    skip_without_neurons(subject, source)
    graph = trace(tiny_prompt(), subject, source, SETTINGS)
    return prepare(graph, subject, source)


def some_edits(experiment: Experiment, count: int) -> list[SetTo | Scale | Add]:
    """Edits of features of all layers, and of an error."""
    nodes = experiment.graph.nodes
    features = np.flatnonzero(nodes.is_kind(NodeKind.FEATURE))
    chosen = features[np.linspace(0, len(features) - 1, count).astype(int)]
    kinds = [Scale, SetTo, Add]
    edits: list[SetTo | Scale | Add] = [
        kinds[i % 3](str(nodes[row]), 0.5 * i - 1.0) for i, row in enumerate(chosen.tolist())
    ]
    error = int(np.flatnonzero(nodes.is_kind(NodeKind.ERROR))[-1])
    return [*edits, Scale(str(nodes[error]), -0.5)]


def after(experiment: Experiment, *edits, regime: Regime = Regime.FREE) -> Outcomes:
    return intervene(experiment, [intervention(experiment.graph, edits)], regime)


@pytest.mark.parametrize("kind", DICTIONARIES)
def test_with_everything_held_the_model_does_what_the_graph_predicts(subject: Subject, kind: str):
    experiment = experiment_on(subject, source_of(kind))
    edits = some_edits(experiment, 6)
    together = [intervention(experiment.graph, [edit]) for edit in edits]
    together.append(intervention(experiment.graph, edits))
    outcomes = intervene(experiment, together, Regime.FROZEN)
    told = experiment.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.LOGIT)
    np.testing.assert_allclose(outcomes.measured[:, told], outcomes.predicted[:, told], **EXACT)
    assert np.abs(outcomes.measured[:, experiment.graph.target_rows()]).min(1).max() > 1e-3


def test_a_filled_set_is_predicted_in_both_its_parts(gemma: Subject):
    source = Filled(partial(), Neurons(max_features=40))
    experiment = experiment_on(gemma, source)
    edits = some_edits(experiment, 6)
    outcomes = after(experiment, *edits, regime=Regime.FROZEN)
    told = experiment.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.LOGIT)
    np.testing.assert_allclose(outcomes.measured[:, told], outcomes.predicted[:, told], **EXACT)


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_free_and_unchanged_is_a_plain_pass(subject: Subject, kind: str):
    experiment = experiment_on(subject, source_of(kind))
    outcomes = after(experiment)
    assert torch.equal(outcomes.after[0], outcomes.before)
    told = experiment.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.LOGIT)
    np.testing.assert_allclose(outcomes.measured[:, told], 0, atol=1e-9)


@contextmanager
def neuron_at(subject: Subject, layer: int, pos: int, index: int, factor: float) -> Iterator[None]:
    """The plain model with one neuron multiplied, as anyone would do it by hand."""
    layout = subject.frozen.layout
    down = part(part(subject.frozen.modules[layer], layout.mlp), layout.down)

    def hook(module, args):
        neurons = args[0].clone()
        neurons[:, pos, index] *= factor
        return (neurons,)

    handle = down.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_a_free_neuron_is_what_a_hook_on_the_model_gives(dense_subject: Subject):
    source = Neurons(max_features=60)
    experiment = experiment_on(dense_subject, source)
    nodes = experiment.graph.nodes
    first = int(np.flatnonzero(nodes.is_kind(NodeKind.FEATURE))[0])
    place = int(nodes.layer[first]), int(nodes.pos[first]), int(nodes.index[first])
    outcomes = after(experiment, Scale(str(nodes[first]), -1.5))
    with neuron_at(dense_subject, *place, -1.5):
        logits = plain_logits(dense_subject, experiment.local.recording.prompt.ids)
    np.testing.assert_allclose(outcomes.after[0], logits, **EXACT)


def plain_logits(subject: Subject, ids: tuple[int, ...]) -> torch.Tensor:
    """The model's logits at the last position, norms computed in float64."""
    return record(subject.frozen, tiny_prompt(ids)).logits


@pytest.mark.parametrize("kind", ["cross-layer, skip", "per layer, skip, residual to mlp output"])
def test_a_running_feature_is_scaled_from_what_other_edits_leave_it(gemma: Subject, kind: str):
    experiment = experiment_on(gemma, source_of(kind))
    graph = experiment.graph
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    low = features[graph.nodes.layer[features] == 0]
    # The last position hears the others, so its features answer to edits elsewhere.
    high = features[graph.nodes.layer[features] == 2]
    high = int(high[graph.nodes.pos[high] == 5][0])
    off = [SetTo(str(graph.nodes[row]), 0.0) for row in low.tolist()]
    moved = after(experiment, *off).measured[0, high]
    source = experiment.local.features.at(2)
    live = graph.nodes.value[high] + moved
    threshold = source.transcoder.nonlinearity.threshold[graph.nodes.index[high]]
    live = live if live > threshold else 0.0
    scaled = after(experiment, *off, Scale(str(graph.nodes[high]), 2.0))
    given = after(experiment, *off, SetTo(str(graph.nodes[high]), 2 * float(live)))
    assert abs(moved) > 1e-3
    np.testing.assert_allclose(scaled.after, given.after, **EXACT)
    np.testing.assert_allclose(scaled.measured, given.measured, **EXACT)


@pytest.mark.parametrize("kind", DICTIONARIES)
@pytest.mark.parametrize("name", ["gemma-2", "gpt-neox"])
def test_constrained_to_the_last_block_only_the_final_norm_runs(name: str, kind: str):
    subject = cached_subject(name)
    experiment = experiment_on(subject, source_of(kind))
    edits = some_edits(experiment, 4)
    made = [intervention(experiment.graph, edits)]
    last = subject.frozen.n_layers - 1
    frozen = intervene(experiment, made, Regime.FROZEN)
    outcomes = intervene(experiment, made, Regime.CONSTRAINED, through=last)
    features = experiment.graph.nodes.is_kind(NodeKind.FEATURE)
    np.testing.assert_allclose(
        outcomes.measured[:, features], frozen.measured[:, features], **EXACT
    )
    assert not torch.allclose(outcomes.after, frozen.after)


def test_constrained_below_holds_what_is_below_and_runs_what_is_above(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    nodes = experiment.graph.nodes
    features = np.flatnonzero(nodes.is_kind(NodeKind.FEATURE))
    first = features[nodes.layer[features] == 0]
    made = [intervention(experiment.graph, [Scale(str(nodes[int(row)]), -3.0) for row in first])]
    frozen = intervene(experiment, made, Regime.FROZEN)
    held = intervene(experiment, made, Regime.CONSTRAINED)
    free = intervene(experiment, made, Regime.FREE)
    assert held.through == (0,)
    # Block 1 runs, but its attention and so what it reads are still linear but for the norm.
    assert not np.allclose(held.measured[0, features], frozen.measured[0, features])
    assert not np.allclose(held.measured[0, features], free.measured[0, features])


def test_the_order_of_edits_is_of_no_matter(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary(cross_layer=True))
    edits = some_edits(experiment, 6)
    for regime in Regime:
        one = after(experiment, *edits, regime=regime)
        other = after(experiment, *edits[::-1], regime=regime)
        np.testing.assert_allclose(one.after, other.after, **EXACT)
        np.testing.assert_allclose(one.measured, other.measured, **EXACT)


@pytest.mark.parametrize("regime", Regime)
@pytest.mark.parametrize("kind", ["cross-layer, normalised to mlp output, topk", "neurons"])
def test_many_interventions_at_once_are_what_each_is_alone(
    gemma: Subject, kind: str, regime: Regime, monkeypatch: pytest.MonkeyPatch
):
    experiment = experiment_on(gemma, source_of(kind))
    made = [intervention(experiment.graph, [edit]) for edit in some_edits(experiment, 6)]
    together = intervene(experiment, made, regime)
    modules = circuits.interventions.additions, circuits.interventions.batches
    for module, limit in zip(modules, ("ROWS", "CHANGES"), strict=True):
        monkeypatch.setattr(module, limit, 1)
        in_parts = intervene(experiment, made, regime)
        np.testing.assert_allclose(together.after, in_parts.after, **EXACT)
        np.testing.assert_allclose(together.measured, in_parts.measured, **EXACT)
    monkeypatch.setattr(circuits.interventions.batches, "POSITIONS", 1)
    alone = intervene(experiment, made, regime)
    np.testing.assert_allclose(together.after, alone.after, **EXACT)
    np.testing.assert_allclose(together.measured, alone.measured, **EXACT)


def test_passes_hold_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.interventions.batches, "CHANGES", 5)

    def sizes(*changes: int) -> list[tuple[int, int]]:
        made = [
            Intervention("", (Change(NodeId(NodeKind.FEATURE, 0, 1, 2), 0.0),) * n) for n in changes
        ]
        return [(rows.start, rows.stop) for rows in batches(made, 3)]

    assert sizes(1, 1, 1, 1) == [(0, 3), (3, 4)]
    assert sizes(3, 3, 9, 1, 1) == [(0, 1), (1, 2), (2, 3), (3, 5)]
    assert sizes() == []


def test_a_push_is_added_behind_its_block(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    vector = np.random.default_rng(0).normal(size=gemma.frozen.d_model)
    last = gemma.frozen.n_layers - 1
    outcomes = after(experiment, Steer(last, 5, vector, 2.0))
    moved = experiment.local.recording.final_residual[5] + 2 * torch.from_numpy(vector)
    norm = gemma.frozen.final_norm
    final = norm.linear(moved, norm.denominator(moved)) + norm.bias
    np.testing.assert_allclose(outcomes.after[0], gemma.frozen.logits(final), **EXACT)
    assert np.isnan(outcomes.predicted).all()


def test_targets_are_told_one_by_one(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    edits = some_edits(experiment, 2)
    told = list(at_targets(experiment, after(experiment, *edits, regime=Regime.FROZEN)))
    assert [one.target for one in told] == [
        str(experiment.graph.nodes[row]) for row in experiment.graph.target_rows().tolist()
    ]
    for one in told:
        assert one.predicted == pytest.approx(one.measured, rel=1e-9)


def test_generation_goes_on_under_an_intervention(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    name = "feature:0/4@5"
    untouched = generate(experiment, intervention(experiment.graph, []), 4)
    plain, same = untouched.before_ids, untouched.after_ids
    sentence = "context has 64 tokens and the prompt 6: generate at most 58"
    with pytest.raises(EditError, match=sentence):
        generate(experiment, intervention(experiment.graph, []), 59)
    assert plain == same == greedy(gemma, experiment.local.recording.prompt.ids, 4)
    here = intervention(experiment.graph, [Add(name, 10.0)])
    onward = intervention(experiment.graph, [Add(f"{name}+", 10.0)])
    at_prompt = generate(experiment, here, 4).after_ids
    further = generate(experiment, onward, 4).after_ids
    assert at_prompt[0] == further[0] != plain[0]
    assert at_prompt[1:] != further[1:]


def greedy(subject: Subject, ids: tuple[int, ...], n_tokens: int) -> tuple[int, ...]:
    told = list(ids)
    for _ in range(n_tokens):
        told.append(int(plain_logits(subject, tuple(told)).argmax()))
    return tuple(told[len(ids) :])


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (SetTo("feature:1/99999@2", 0.0), "layer 1 has 20 features, numbered from 0"),
        (Steer(1, 2, np.zeros(3)), "has shape .3,., the residual stream has .16,."),
    ],
)
def test_what_the_model_does_not_have_is_refused(gemma: Subject, edit, sentence: str):
    experiment = experiment_on(gemma, toy_dictionary())
    with pytest.raises(EditError, match=sentence):
        after(experiment, edit)


def test_blocks_are_held_up_to_one_that_is_there(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    with pytest.raises(EditError, match="no block 3 to hold: choose one of 0 to 2"):
        intervene(experiment, [], Regime.CONSTRAINED, through=3)
    with pytest.raises(EditError, match="needs the constrained regime"):
        intervene(experiment, [], Regime.FREE, through=1)


def test_a_graph_of_something_else_is_refused(gemma: Subject):
    graph = experiment_on(gemma, toy_dictionary()).graph
    with pytest.raises(ExperimentError, match="is not active in this model and dictionary"):
        prepare(graph, gemma, toy_dictionary(nonlinearity="topk"))
    with pytest.raises(ExperimentError, match="this model and dictionary: give those"):
        prepare(graph, cached_subject("llama"), toy_dictionary())
