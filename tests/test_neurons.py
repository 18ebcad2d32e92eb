from __future__ import annotations

import torch

from circuits.neurons import Neurons, attribution, held_ratio, neuron_layer
from circuits.points import MlpPoints, ReadPoint, WritePoint
from circuits.recording import record
from circuits.subject import Subject
from circuits.targets import TargetSettings, read_targets
from tests.tiny import tiny_prompt
from tests.tolerances import EXACT


def test_neurons_write_what_the_mlp_adds(subject: Subject):
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    pos = torch.arange(len(recording.prompt))
    for layer in range(frozen.n_layers):
        mlp = neuron_layer(points, layer)
        written = points.written(layer, pos, mlp.activation @ mlp.down.T + mlp.down_bias)
        torch.testing.assert_close(written, recording.blocks[layer].contribution, **EXACT)


def test_branches_sum_to_the_activation(subject: Subject):
    frozen, recording = subject.frozen, record(subject.frozen, tiny_prompt())
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    mlp = neuron_layer(points, 1)
    inputs = points.inputs(1)
    flow = sum(b.factor * (inputs @ b.weight.T + b.bias) for b in mlp.branches)
    torch.testing.assert_close(flow, mlp.activation, **EXACT)


def test_a_neuron_at_exactly_zero_passes_nothing_on():
    ratio = held_ratio(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 2.0]))
    assert ratio.tolist() == [0.0, 1.5]


def test_attribution_of_all_neurons_conserves_the_target(gemma: Subject):
    """Through all MLPs, tokens alone account for the target: neurons at each layer pass it on."""
    frozen, recording = gemma.frozen, record(gemma.frozen, tiny_prompt(context_only=0))
    targets = read_targets(frozen, recording, TargetSettings(max_logits=1), gemma.spell)
    points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
    layers = tuple(neuron_layer(points, i) for i in range(frozen.n_layers))
    scores = attribution(layers, targets.covectors)
    # The last layer's neurons reach the target directly: activation times decoder times covector.
    last = layers[2]
    direct = last.activation * last.output_covector(
        torch.zeros(1, 6, 16)
        .double()
        .index_put((torch.tensor([0]), torch.tensor([5])), targets.covectors.covector[0])
    )
    weight = float(targets.covectors.weight[0])
    torch.testing.assert_close(scores[2], weight * direct[0].abs(), **EXACT)
    assert not scores[2][:5].any()
    assert scores[1][:5].any()


def test_the_strongest_are_chosen_up_to_the_limit(subject: Subject):
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
