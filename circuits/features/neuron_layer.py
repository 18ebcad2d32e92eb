"""The neurons of one MLP, linear in its input with factors frozen (see `neurons`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from circuits.features.hook_points import MlpPoints, read_at
from circuits.machine import moved, on_device
from circuits.model.architectures import Layout, UnsupportedArchitecture, affine, part
from graphs.core.responses import Nonlinearity

# transformers' classes of activation functions.
KNOWN: dict[str, Nonlinearity] = {
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "NewGELUActivation": "gelu_tanh",
    "ReLU": "relu",
    "ReLUSquaredActivation": "relu_squared",
    "SiLU": "silu",
    "SiLUActivation": "silu",
}


@dataclass(frozen=True)
class Branch:
    """One matrix into the neurons, and how much of each activation flows through it."""

    weight: Float[Tensor, "neuron d_model"]
    bias: Float[Tensor, " neuron"]
    factor: Float[Tensor, "pos neuron"]  # activation = Σ_branch factor · (weight · x + bias)


@dataclass(frozen=True)
class NeuronLayer:
    """One layer's MLP on one prompt, linear in its input with the factors frozen.

    It is where the layer lies; positions and numbers of neurons may be on any device.
    """

    points: MlpPoints
    layer: int
    branches: tuple[Branch, ...]  # the nonlinearity's first
    nonlinearity: nn.Module
    down: Float[Tensor, "d_model neuron"]
    down_bias: Float[Tensor, " d_model"]
    activation: Float[Tensor, "pos neuron"]

    def encoder(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        """Covectors on the MLP's input."""
        pos, index = self._here(pos, index)
        return sum_tensors(
            branch.factor[pos, index, None] * branch.weight[index] for branch in self.branches
        )

    def constant(self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]) -> Tensor:
        """Activations at a zero residual, from biases of the MLP and of its norm."""
        pos, index = self._here(pos, index)
        biases = sum_tensors(
            branch.factor[pos, index] * branch.bias[index] for branch in self.branches
        )
        return biases + self.encoder(pos, index) @ self.points.constant_input(self.layer)

    def rows(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        covector = self.points.pull_back(self.layer, pos, self.encoder(pos, index))
        return covector, self.constant(pos, index)

    @property
    def function(self) -> Nonlinearity | None:
        """Name of the activation function, if it has one."""
        return KNOWN.get(type(self.nonlinearity).__name__)

    def gate(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> tuple[Float[Tensor, "row d_model"], Float[Tensor, " row"]]:
        """What the activation function is of: covectors on the residual, and constants."""
        pos, index = self._here(pos, index)
        gate = self.branches[0]
        weight, bias = gate.weight[index], gate.bias[index]
        constant = bias + weight @ self.points.constant_input(self.layer)
        return self.points.pull_back(self.layer, pos, weight), constant

    @property
    def width(self) -> int:
        return self.down.shape[1]

    @property
    def n_written(self) -> int:
        return 1

    def recorded(
        self, pos: Int[ndarray, " row"], index: Int[ndarray, " row"]
    ) -> Float[Tensor, " row"]:
        at = on_device(np.stack([pos, index]), self.activation.device)
        return self.activation[at[0], at[1]]

    def values(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        """Activations: a neuron's value is its activation."""

        own = on_device(index, residual.device)
        inputs = self.points.running_inputs(self.layer, residual)
        into = [read_at(inputs, pos, b.weight[own]) + b.bias[own] for b in self.branches]
        gated = self.nonlinearity(into[0])
        return gated if len(into) == 1 else gated * into[1]

    def activations(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        pos: Int[ndarray, " row"],
        index: Int[ndarray, " row"],
    ) -> Float[Tensor, "batch row"]:
        return self.values(residual, pos, index)

    def written(
        self, offset: int, index: Int[ndarray, " row"], activation: Float[Tensor, " row"]
    ) -> Float[Tensor, "row d_model"]:
        assert offset == 0  # neurons write to their own layer
        return activation[:, None] * self.down.T[on_device(index, activation.device)]

    def _here(
        self, pos: Int[Tensor, " row"], index: Int[Tensor, " row"]
    ) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
        return moved(pos, self.down.device), moved(index, self.down.device)

    def output_covector(self, covector: Float[Tensor, "row pos d_model"], first: int) -> Tensor:
        """Covectors on the neurons' activations, from covectors on the residual."""
        pos = torch.arange(first, first + covector.shape[1], device=covector.device)
        return self.points.pull_back_written(self.layer, pos, covector) @ self.down

    def input_covector(self, neurons: Float[Tensor, "row pos neuron"], first: int) -> Tensor:
        """Covectors on the residual that the MLP reads, from covectors on activations."""
        pos = torch.arange(first, first + neurons.shape[1], device=neurons.device)
        read = sum_tensors(
            (neurons * branch.factor[pos]) @ branch.weight for branch in self.branches
        )
        return self.points.pull_back(self.layer, pos, read)


def neuron_layer(points: MlpPoints, layer: int) -> NeuronLayer:
    """One layer's neurons with their factors at the recorded point."""
    layout = points.frozen.layout
    if layout.experts:
        raise UnsupportedArchitecture(
            f"The MLPs of {type(points.frozen.model).__name__} are mixtures of experts, whose "
            "neurons differ per token: give --transcoders."
        )
    mlp = points.frozen.blocks[layer].modules.mlp
    nonlinearity = part(mlp, layout.nonlinearity)
    inputs = points.inputs(layer)
    gated_by, (up, up_bias) = into_neurons(mlp, layout)
    through_up = inputs @ up.T + up_bias
    if gated_by is None:
        activation = nonlinearity(through_up)
        branches = (Branch(up, up_bias, frozen_ratio(activation, through_up)),)
    else:
        gate, gate_bias = gated_by
        through_gate = inputs @ gate.T + gate_bias
        gated = nonlinearity(through_gate)
        activation = gated * through_up
        ratio = frozen_ratio(gated, through_gate)
        branches = (
            Branch(gate, gate_bias, 0.5 * ratio * through_up),
            Branch(up, up_bias, 0.5 * gated),
        )
    down, down_bias = with_bias(part(mlp, layout.down))
    return NeuronLayer(points, layer, branches, nonlinearity, down, down_bias, activation)


def into_neurons(
    mlp: nn.Module, layout: Layout
) -> tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor]]:
    """Weight and bias of the gate, None without one, and of the other branch."""
    weight, bias = with_bias(part(mlp, layout.up))
    if layout.gate == layout.up:
        (gate, up), (gate_bias, up_bias) = weight.chunk(2), bias.chunk(2)
        return (gate, gate_bias), (up, up_bias)
    return None if layout.gate is None else with_bias(part(mlp, layout.gate)), (weight, bias)


def frozen_ratio(after: Tensor, before: Tensor) -> Tensor:
    """after / before; 0 where before is 0, since the neuron transmits nothing there."""
    return torch.where(before == 0, 0, after / torch.where(before == 0, 1, before))


def with_bias(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias, zero where there is none."""
    weight, bias = affine(module)
    return weight, weight.new_zeros(len(weight)) if bias is None else bias


def sum_tensors(terms) -> Tensor:
    """Sum of at least one tensor."""
    return torch.stack(list(terms)).sum(0)
