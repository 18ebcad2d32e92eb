from __future__ import annotations

import pytest
import torch

from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.hook_points import MlpPoints
from circuits.features.neuron_layer import frozen_ratio, neuron_layer
from circuits.features.neurons import Neurons, attribution
from circuits.features.points import ReadPoint, WritePoint
from circuits.model.architectures import UnsupportedArchitecture
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import record
from tests.conftest import cached_subject
from tests.tiny import tiny_prompt
from tests.tolerances import EXACT


def test_neurons_write_what_the_mlp_adds(dense_subject: Subject):
    subject = dense_subject
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    pos = torch.arange(len(recording.prompt))
    for layer in range(frozen.n_layers):
        mlp = neuron_layer(points, layer)
        written = points.written(layer, pos, mlp.activation @ mlp.down.T + mlp.down_bias)
        torch.testing.assert_close(written, recording.blocks[layer].contribution, **EXACT)


def test_branches_sum_to_the_activation(dense_subject: Subject):
    subject = dense_subject
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    mlp = neuron_layer(points, 1)
    inputs = points.inputs(1)
    flow = sum(b.factor * (inputs @ b.weight.T + b.bias) for b in mlp.branches)
    torch.testing.assert_close(flow, mlp.activation, **EXACT)


def test_a_neuron_at_exactly_zero_passes_nothing_on():
    ratio = frozen_ratio(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 2.0]))
    assert ratio.tolist() == [0.0, 1.5]


def test_attribution_is_activation_times_gradient_through_all_mlps(dense_subject: Subject):
    """Against a gradient taken by autograd through the model with every factor held."""
    subject = dense_subject
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    targets = read_targets(frozen, recording, TargetSettings(max_logits=1), subject.spell)
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    layers = tuple(neuron_layer(points, i) for i in range(frozen.n_layers))
    scores = attribution(layers, targets.covectors)
    context, pos = recording.prompt.n_prefix, torch.arange(len(recording.prompt))
    gates = [torch.ones_like(mlp.activation, requires_grad=True) for mlp in layers]
    x = recording.tokens + (0 if recording.positions is None else recording.positions)
    for mlp, block, seen, gate in zip(layers, frozen.blocks, recording.blocks, gates, strict=True):
        values = (x / seen.attention_denominator[:, None]) @ block.value.T + block.value_constant
        values = values.unflatten(1, (-1, block.d_head)).transpose(0, 1)
        values = values.repeat_interleave(len(seen.pattern) // len(values), 0)
        mixed = (seen.pattern @ values).transpose(0, 1).flatten(1)
        attended = mixed @ block.output.T + block.output_constant
        attended = attended / seen.post_attention_denominator[:, None]
        read = x if frozen.parallel else x + attended
        norm = block.mlp_norm
        read = norm.linear(read, seen.mlp_denominator) + norm.bias
        flows = [b.factor * (read @ b.weight.T + b.bias) for b in mlp.branches]
        neurons = torch.stack(flows).sum(0) * gate
        added = points.written(mlp.layer, pos, neurons @ mlp.down.T + mlp.down_bias)
        added = torch.where(pos[:, None] < context, seen.contribution, added)
        x = x + attended + added
    value = x[-1] @ targets.covectors.covector[0]
    gradients = torch.autograd.grad(value, gates)
    expected = torch.stack(gradients).abs() * targets.covectors.weight[0]
    torch.testing.assert_close(scores, expected, **EXACT)
    assert scores[0].any()


def test_the_strongest_are_chosen_up_to_the_limit(dense_subject: Subject):
    subject = dense_subject
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    targets = read_targets(frozen, recording, TargetSettings(), subject.spell)
    many = Neurons(10_000).activate(frozen, recording, targets.covectors)
    few = Neurons(10).activate(frozen, recording, targets.covectors)
    assert len(few) == 10
    assert few.found == many.found == len(many)
    assert int(many.pos.min()) == 1

    def triples(features) -> set[tuple[int, int, int]]:
        columns = (features.layer, features.pos, features.index)
        return set(zip(*(column.tolist() for column in columns), strict=True))

    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    layers = tuple(neuron_layer(points, i) for i in range(frozen.n_layers))
    scores = attribution(layers, targets.covectors)
    chosen = torch.tensor([float(scores[triple]) for triple in triples(few)])
    left = torch.tensor([float(scores[triple]) for triple in triples(many) - triples(few)])
    assert chosen.min() >= left.max()


def test_a_mixture_of_experts_has_no_neurons_to_name():
    with pytest.raises(UnsupportedArchitecture, match=r"mixtures of experts.*give --transcoders"):
        trace(tiny_prompt(), cached_subject("gpt-oss"), Neurons())
