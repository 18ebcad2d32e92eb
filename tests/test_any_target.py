"""Whatever is explained: its value is the model's own, its row adds up, its file says it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.attribution.target_names import continued
from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import Direction, Expansion, TargetSettings, TraceSettings
from circuits.evaluation.first_order import first_order_effects
from circuits.features.neurons import Neurons
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.architectures import affine, part, value_projection
from circuits.model.prompt import TargetError
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import Hooks, entering_attention, record
from graphs import NodeKind, Regime, Scale, Steer, intervention, prune, read_graph, write_graph
from graphs.core.provenance import (
    ContrastReading,
    FeatureReading,
    HeadReading,
    Reading,
    TokenReading,
)
from graphs.core.readings import named_reading
from graphs.disk.files import GraphFileError
from tests.conftest import skip_without_neurons
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

WHOLE = Expansion(everything=True, kept_share=1.0)
PROBE = torch.linspace(-1, 2, 16, dtype=torch.float64)
PLACED: tuple[Reading, ...] = (
    TokenReading(what="logit", pos=5, index=4),
    TokenReading(what="logit", pos=2, index=4),
    ContrastReading(pos=3, index=7, against=4),
    FeatureReading(what="feature", pos=4, layer=1, index=3),
    FeatureReading(what="neuron", pos=3, layer=1, index=2),
    HeadReading(pos=2, layer=1, index=1),
)
DIRECTIONS = (
    Direction("final", PROBE),
    Direction("mlp", PROBE, 1, pos=3),
    Direction("attention", PROBE, 1, "attention", pos=4),
)
EVERYTHING = TargetSettings(readings=PLACED, sequence=(9, 5, 14, 8, 3), directions=DIRECTIONS)


def explaining(subject: Subject, targets: TargetSettings, source=None) -> Experiment:
    skip_without_neurons(subject, Neurons())
    source = source or toy_dictionary(skip=True, cross_layer=True)
    graph = trace(tiny_prompt(), subject, source, TraceSettings(targets, WHOLE, labels=0))
    return prepare(graph, subject, source)


@pytest.mark.parametrize("kind", ["dictionary", "neurons"])
def test_rows_of_all_targets_add_up_to_their_values(subject: Subject, kind: str):
    experiment = explaining(subject, EVERYTHING, Neurons(60) if kind == "neurons" else None)
    graph = experiment.graph
    rows = graph.target_rows()
    assert len(rows) == len(PLACED) + 5 + len(DIRECTIONS)
    sums = np.asarray(graph.weights[rows].sum(axis=1)).ravel() + graph.dropped[rows]
    np.testing.assert_allclose(sums, graph.nodes.value[rows], **EXACT)
    np.testing.assert_allclose(sums, experiment.local.targets.value, **EXACT)
    assert graph.provenance.checks.failures == ()


def test_with_everything_held_all_targets_change_as_predicted(subject: Subject):
    experiment = explaining(subject, EVERYTHING)
    graph = experiment.graph
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    edits = [Scale(str(graph.nodes[row]), 0.3) for row in features[::7].tolist()]
    outcomes = intervene(experiment, [intervention(graph, edits)], Regime.FROZEN)
    rows = graph.target_rows()
    np.testing.assert_allclose(outcomes.measured[0, rows], outcomes.predicted[0, rows], **EXACT)
    assert (np.abs(outcomes.measured[0, rows]) > 1e-9).mean() > 0.5


def test_what_runs_changes_targets_as_a_recording_of_it_has_them(subject: Subject):
    """A vector is added behind the first block, by our hooks and by a plain one."""
    targets = TargetSettings(readings=PLACED[:5], directions=DIRECTIONS)
    experiment = explaining(subject, targets)
    graph, frozen, source = experiment.graph, subject.frozen, experiment.source
    steer = intervention(graph, [Steer(0, 1, PROBE.numpy(), 0.5)])
    measured = intervene(experiment, [steer], Regime.FREE).measured[0, graph.target_rows()]

    def add(_, __, output):
        hidden = output[0] if isinstance(output, tuple) else output
        hidden[:, 1] += 0.5 * PROBE

    handle = frozen.modules[0].register_forward_hook(add)
    steered = record(frozen, tiny_prompt())
    handle.remove()
    now = read_targets(frozen, steered, targets, subject.spell, source).value
    before = read_targets(frozen, record(frozen, tiny_prompt()), targets, subject.spell, source)
    np.testing.assert_allclose(measured, now - before.value, rtol=1e-8, atol=1e-9)
    assert np.abs(measured).max() > 1e-4


def test_values_are_what_the_models_own_modules_compute(gemma: Subject):
    frozen = gemma.frozen
    modules, layout = frozen.blocks[1].modules, frozen.layout
    seen: dict[str, torch.Tensor] = {}
    assert layout.gate is not None
    record(frozen, tiny_prompt())  # the first is compared with a plain pass, which hooks would see
    with Hooks() as hooks:
        hooks.after(part(modules.mlp, layout.gate), lambda _, out: seen.update(gate=out[0]))
        hooks.before(modules.attention, lambda x: seen.update(normalised=x[0]))
        recording = record(frozen, tiny_prompt())
    targets = read_targets(frozen, recording, EVERYTHING, gemma.spell, toy_dictionary())
    value = dict(zip((one.text for one in targets.described), targets.value, strict=True))
    torch.testing.assert_close(value["neuron:1/2@3"], seen["gate"][3, 2], **EXACT)

    heads = len(recording.blocks[1].pattern)
    weight, _ = value_projection(modules.attention, layout, heads)
    out, _ = affine(part(modules.attention, layout.output))
    width, shared = out.shape[1] // heads, heads // (len(weight) // (out.shape[1] // heads))
    own = slice(1 // shared * width, (1 // shared + 1) * width)
    carried = out[:, width : 2 * width] @ (weight[own] @ seen["normalised"][2])
    gain = frozen.blocks[1].post_attention_norm
    assert gain is not None
    torch.testing.assert_close(value["head:1/1@2"], (carried * gain.gain).norm(), **EXACT)
    residual = entering_attention(frozen, recording, 1)[4]
    torch.testing.assert_close(value["attention"], PROBE @ residual, **EXACT)


def test_tokens_of_a_sequence_read_the_gradient_of_their_log_probability(subject: Subject):
    frozen = subject.frozen
    recording = record(frozen, tiny_prompt())
    targets = read_targets(frozen, recording, TargetSettings(sequence=(14, 8, 3)), subject.spell)
    assert [one.token_id for one in targets.described] == [14, 8, 3]
    assert targets.covectors.pos.tolist() == [3, 4, 5]
    surprise = [1 - one.probability for one in targets.described if one.probability is not None]
    np.testing.assert_allclose(targets.covectors.weight, surprise, **EXACT)
    for row, (pos, token) in enumerate(((3, 14), (4, 8), (5, 3))):
        norm, at = frozen.final_norm, recording.final_denominator[pos]
        own = frozen.model(input_ids=torch.tensor([tiny_prompt().ids])).logits[0, pos]
        probability = own.double().softmax(-1)[token]
        assert targets.described[row].probability == pytest.approx(float(probability), rel=1e-6)
        residual = recording.final_residual[pos].clone().requires_grad_()
        logits = (norm.linear(residual, at) + norm.bias) @ frozen.unembedding.T
        # The cap is not linear: the gradient is that of uncapped logits, at capped probabilities.
        capped = frozen.logits(norm.linear(recording.final_residual[pos], at) + norm.bias)
        pull = torch.nn.functional.one_hot(torch.tensor(token), len(logits)) - capped.softmax(-1)
        (gradient,) = torch.autograd.grad(logits @ pull.double(), residual)
        torch.testing.assert_close(targets.covectors.covector[row], gradient, **EXACT)


def test_a_file_says_again_what_its_graph_explains(gemma: Subject, tmp_path: Path):
    source = toy_dictionary()
    settings = TraceSettings(EVERYTHING, WHOLE, labels=0)
    graph = trace(tiny_prompt(), gemma, source, settings)
    write_graph(prune(graph), tmp_path / "graph.safetensors")
    kept = read_graph(tmp_path / "graph.safetensors")
    again = prepare(kept, gemma, source).local.targets
    np.testing.assert_allclose(again.value, graph.nodes.value[graph.target_rows()], **EXACT)
    assert [one.text for one in again.described] == [one.text for one in kept.provenance.targets]


@pytest.mark.parametrize("changed", [{"pos": 4}, {"index": 5}])
def test_a_file_that_says_two_things_of_a_target_is_refused(
    gemma: Subject, tmp_path: Path, changed: dict[str, int]
):
    path = tmp_path / "graph.safetensors"
    settings = TraceSettings(TargetSettings(tokens=(4,)), WHOLE, labels=0)
    graph = trace(tiny_prompt(), gemma, toy_dictionary(), settings)
    (target,) = graph.provenance.targets
    assert isinstance(target.reading, TokenReading)
    other = target.model_copy(update={"reading": target.reading.model_copy(update=changed)})
    header = graph.provenance.model_copy(update={"targets": (other,)})
    write_graph(replace(graph, provenance=header), path)
    with pytest.raises(GraphFileError, match="logit:4@5 differs from what the header says"):
        read_graph(path)


def test_first_order_effects_are_those_of_small_changes(gemma: Subject):
    """Central differences; attention's softmax is in float32, so that the step cannot be small."""
    experiment = explaining(gemma, EVERYTHING)
    graph, step = experiment.graph, 1e-2
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))[::9]
    targets = graph.target_rows()

    def changes(factor: float) -> np.ndarray:
        edits = (Scale(str(graph.nodes[row]), factor) for row in features.tolist())
        some = [intervention(graph, [edit]) for edit in edits]
        measured = intervene(experiment, some, Regime.FREE).measured[:, targets]
        return measured @ graph.seed[targets] / graph.seed.sum()

    expected = (changes(1 - step) - changes(1 + step)) / (2 * step)
    found = first_order_effects(experiment)[experiment.row[features]]
    np.testing.assert_allclose(found, expected, rtol=3e-3, atol=1e-4)


def test_neurons_are_chosen_for_all_targets(gemma: Subject):
    """Of a target in front of attention no neuron of its own layer or above matters."""
    readings = (HeadReading(pos=4, layer=1, index=0),)
    experiment = explaining(gemma, TargetSettings(readings=readings), Neurons(500))
    assert set(experiment.local.features.on_host.layer.tolist()) == {0}


def test_a_prompt_goes_on_with_a_sequence(gemma: Subject):
    settings = TargetSettings(tokens=(4,), directions=(Direction("final", PROBE),))
    prompt, longer = continued("abc", gemma, tiny_prompt(), settings)
    ids = gemma.tokenizer.encode("abc", add_special_tokens=False)
    assert prompt.ids == (*tiny_prompt().ids, *ids[:-1])
    assert longer.sequence == tuple(ids)
    graph = trace(prompt, gemma, toy_dictionary(), TraceSettings(longer, WHOLE, labels=0))
    nodes = graph.nodes.take(graph.target_rows())
    assert nodes.pos.tolist() == [*range(5, 5 + len(ids)), 5, 5]
    assert nodes.kind.tolist() == [NodeKind.TARGET] * (len(ids) + 1) + [NodeKind.LOGIT]


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ((HeadReading(pos=2, layer=1, index=99),), "head:1/99@2 does not exist: layer 1 has"),
        ((FeatureReading(what="feature", pos=2, layer=9, index=0),), "reads layer 9, which does"),
        ((FeatureReading(what="neuron", pos=2, layer=1, index=10**6),), "neurons, numbered from 0"),
        ((TokenReading(what="logit", pos=60, index=1),), "at position 60 of a prompt of 6 tokens"),
        (PLACED[:1] * 2, "A target is given twice"),
    ],
)
def test_places_that_do_not_exist_are_refused(
    gemma: Subject, readings: tuple[Reading, ...], said: str
):
    recording = record(gemma.frozen, tiny_prompt())
    settings = TargetSettings(readings=readings)
    with pytest.raises(TargetError, match=said):
        read_targets(gemma.frozen, recording, settings, gemma.spell, toy_dictionary())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (TargetSettings(tokens=(-1,)), "not in the vocabulary of 23 tokens"),
        (TargetSettings(sequence=(9, 10**6)), "not in the vocabulary of 23 tokens"),
        (TargetSettings(sequence=(3, 4)), "append it with `circuits.continued`"),
        (TargetSettings(directions=(Direction("nan", PROBE * torch.nan),)), "are not finite"),
        (TargetSettings(directions=(Direction("low", PROBE, -1),)), "has layer -1"),
        (TargetSettings(directions=(Direction("short", PROBE[:3]),)), "has 3 numbers, the model"),
    ],
)
def test_numbers_that_no_target_has_are_refused(
    gemma: Subject, settings: TargetSettings, said: str
):
    recording = record(gemma.frozen, tiny_prompt())
    with pytest.raises(TargetError, match=said):
        read_targets(gemma.frozen, recording, settings, gemma.spell)


def test_names_of_targets_are_read_and_no_others():
    assert named_reading("feature:12/345@-1", 8) == FeatureReading(
        what="feature", pos=7, layer=12, index=345
    )
    assert named_reading("logit:5@3", 8) == TokenReading(what="logit", pos=3, index=5)
    assert named_reading(" Paris", 8) is None
    assert named_reading("feature:Dallas", 8) is None
    for wrong in ("feature:5@3", "logit:1/5@3", "head:1/5@8", "neuron:1/5@-9"):
        with pytest.raises(ValueError, match=r"expected logit|There is no position"):
            named_reading(wrong, 8)
