"""Neurons as features, so that any model can be traced without a dictionary.

A neuron's activation is made linear in the MLP's input by freezing factors:

    gated MLP     a = f(g)·u    f(g) = r·g with r = f(g)/g frozen, then half to each branch:
                  a = ½ (r·u)·g + ½ f(g)·u
    other MLP     a = f(z)      = r·z with r = f(z)/z frozen

with g, u, z affine in the input.  Both are exact at the recorded point, so a neuron's incoming
weights sum to its activation.  Source: the half rule of RelP (arXiv 2508.21258) and of
"Language model circuits are sparse in the neuron basis" (arXiv 2601.22594).

All neurons are active, so the strongest are chosen: by |activation × gradient of the targets|,
with the gradient taken through all MLPs under the same rule.  Neurons that are not chosen are part
of the error node of their layer and position.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.features.active import ActiveFeatures, LinearPath, Places
from circuits.features.hook_points import MlpPoints
from circuits.features.neuron_layer import NeuronLayer, neuron_layer
from circuits.features.points import ReadPoint, WritePoint
from circuits.machine import gathered, moved, on_device
from circuits.model.architectures import affine, part
from circuits.model.frozen import Covectors, FrozenModel
from circuits.recording.attention import Attention
from circuits.recording.record import Recording
from graphs.core.nodes import Description
from graphs.core.provenance import NEURONS, DictionaryIdentity


@dataclass(frozen=True)
class NeuronRows:
    """Encoder and decoder rows of the chosen neurons."""

    layers: tuple[NeuronLayer, ...]
    layer: Int[Tensor, " feat"]
    pos: Int[Tensor, " feat"]
    index: Int[Tensor, " feat"]

    def encoder(
        self, ends: Int[ndarray, " end"], feature: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        pos, index = self.pos.index_select(0, feature), self.index.index_select(0, feature)
        found = [self.layers[0].down.new_empty(0, len(self.layers[0].down))]
        for layer, (start, end) in enumerate(pairwise(ends.tolist())):
            if start < end:
                mlp, own = self.layers[layer], pos[start:end]
                found.append(mlp.points.pull_back(layer, own, mlp.encoder(own, index[start:end])))
        return gathered(found, self.pos.device)

    def decoder(
        self, layer: int, written: int, feature: Int[Tensor, " row"] | slice
    ) -> Float[Tensor, "row d_model"]:
        del written  # neurons write at their own layer only
        mlp = self.layers[layer]
        pos, index = (moved(one[feature], mlp.down.device) for one in (self.pos, self.index))
        rows = mlp.activation[pos, index, None] * mlp.down.T[index]
        return mlp.points.written(layer, pos, rows)

    def constant(self, layer: int) -> Float[Tensor, "pos d_model"]:
        mlp = self.layers[layer]
        pos = torch.arange(len(mlp.activation), device=mlp.down.device)
        return mlp.points.written(layer, pos, mlp.down_bias.expand(len(pos), -1))

    def linear(self, layer: int) -> dict[int, LinearPath]:
        del layer
        return {}

    def at(self, layer: int, active: Places, activation: Float[Tensor, " feat"]) -> NeuronLayer:
        del active, activation  # all neurons are active
        return self.layers[layer]


@dataclass(frozen=True)
class Neurons:
    """The model's own MLP neurons as a source of features."""

    max_features: int = 4096  # strongest (layer, position, neuron) triples that become features

    def peak_values(self, frozen: FrozenModel, n_tokens: int) -> int:
        """Activations, factors of two branches and scores of all layers."""
        if frozen.layout.experts:
            return 0  # `activate` raises for these
        down, _ = affine(part(frozen.blocks[0].modules.mlp, frozen.layout.down))
        return 4 * frozen.n_layers * n_tokens * down.shape[1]

    def at(self, frozen: FrozenModel, recording: Recording, layer: int) -> NeuronLayer:
        """All neurons of a layer."""
        points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
        return neuron_layer(points, layer)

    def describe(self, layer: int, index: int) -> Description | None:
        """Nothing is known about neurons."""
        del layer, index
        return None

    def activate(
        self,
        frozen: FrozenModel,
        recording: Recording,
        targets: Covectors,
        among: set[int] | None = None,
    ) -> ActiveFeatures:
        """The neurons with the largest attribution to the targets, of all layers or `among` these.

        Raises UnsupportedArchitecture for MLPs without neurons of their own (mixtures of experts).
        """
        points = MlpPoints(frozen, recording, ReadPoint.MLP_INPUT, WritePoint.MLP_OUTPUT)
        layers = tuple(neuron_layer(points, i) for i in range(frozen.n_layers))
        scores = attribution(layers, targets)
        for layer in range(frozen.n_layers):
            if among is not None and layer not in among:
                scores[layer] = 0
        found = int((scores > 0).sum())
        chosen = scores.flatten().topk(min(self.max_features, found)).indices.sort().values
        _, n_pos, n_neurons = scores.shape
        layer, pos = chosen // (n_pos * n_neurons), chosen // n_neurons % n_pos
        index = chosen % n_neurons
        activation = gathered([mlp.activation.flatten() for mlp in layers], chosen.device)[chosen]
        ends = np.arange(len(layers) + 1) * n_pos * n_neurons
        rows = map(slice, *(np.searchsorted(chosen.cpu().numpy(), ends)[at:] for at in (0, 1)))
        constant = [
            mlp.constant(pos[here], index[here]) for mlp, here in zip(layers, rows, strict=False)
        ]
        return ActiveFeatures(
            layer=layer,
            pos=pos,
            index=index,
            activation=activation,
            value=activation,
            constant=gathered(constant, chosen.device),
            threshold=torch.full_like(activation, torch.nan),
            reads_norm=tuple(map(points.reads_norm, range(frozen.n_layers))),
            covered=(False,) * frozen.n_layers,
            reach=tuple(range(frozen.n_layers)),
            rows=NeuronRows(layers, layer, pos, index),
            identity=DictionaryIdentity(kind=NEURONS, name="MLP neurons"),
            found=found,
        )


def attribution(
    layers: tuple[NeuronLayer, ...], targets: Covectors
) -> Float[Tensor, "layer pos neuron"]:
    """Size of activation × gradient of every neuron, weighted over the targets.

    With the first layer, as the targets are.
    """
    points = layers[0].points
    frozen, recording = points.frozen, points.recording
    first, length = recording.prompt.n_prefix, len(recording.prompt)
    scores = layers[0].activation.new_zeros(len(layers), *layers[0].activation.shape)
    if (targets.pos < first).any():
        return scores  # neurons have no effect on prefix positions
    attention = Attention(frozen, recording, first)
    covector = scores.new_zeros(len(targets.pos), length - first, frozen.d_model)
    pos = on_device(targets.pos - first, scores.device)
    weight = on_device(targets.weight, scores.device, scores.dtype)

    def join(level: int) -> None:
        own = np.flatnonzero(targets.level == level)
        if len(own):
            rows = on_device(own, covector.device)
            joining = moved(targets.take(own).covector, covector.device)
            covector[rows, pos[rows]] += joining

    join(2 * len(layers))
    for layer in reversed(range(len(layers))):
        mlp = layers[layer]
        if covector.device != mlp.down.device:
            parts = covector, pos, weight
            covector, pos, weight = (moved(one, mlp.down.device) for one in parts)
        at_neurons = mlp.output_covector(covector, first)
        effect = (at_neurons * mlp.activation[first:]).abs()
        scores[layer, first:] = moved(torch.einsum("t,tpn->pn", weight, effect), scores.device)
        through_mlp = mlp.input_covector(at_neurons, first)
        if frozen.parallel:
            attention.pull_back(layer, covector, pos, crossed=len(pos))
            covector += through_mlp
            join(2 * layer)
        else:
            covector += through_mlp
            join(2 * layer)
            attention.pull_back(layer, covector, pos, crossed=len(pos))
            join(2 * layer - 1)
    return scores
