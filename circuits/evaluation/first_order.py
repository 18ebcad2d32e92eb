"""First-order effects: what ablating each active feature alone would change if all were linear.

    effect[s] = -Σ_l gradient[l, pos[s]] · written[s, l]        l: the layers that s writes to

The gradient is that of the targets' value, weighted by the graph's seed, with respect to what is
added behind each MLP, in the model as it runs: attention patterns, norms and MLPs follow.  It is
known of every active feature, also of those that a graph has lost, and does not rest on the graph.
Source: Nanda, "Attribution patching: activation patching at industrial scale" (2023).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from circuits.features.points import WritePoint
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, float32_products, in_float64, moved, on_device
from circuits.recording.record import Hooks, logits_at, precise_attention

ROWS = 2**13  # vectors gathered at once
INNER = ("attention", "mlp")  # whose inputs targets inside the model read


class _Gradient(NamedTuple):
    """The gradient of one layer, by where something is added."""

    output: Float[Tensor, "1 pos d_model"]  # to what the MLP returns, before a norm behind it
    contribution: Float[Tensor, "1 pos d_model"]  # to what it adds to the residual


def first_order_effects(experiment: Experiment) -> Float[ndarray, " feat"]:
    """Estimated change of the targets' value when each active feature alone is ablated."""
    features = experiment.local.features
    gradients = _gradients(experiment)
    found = np.zeros(len(features))
    with exactly():
        for layer in range(len(features.reach)):
            here = features.read_at(layer)
            for start in range(here.start, here.stop, ROWS):
                some = slice(start, min(start + ROWS, here.stop))
                found[some] = -in_float64(_products(experiment, gradients, layer, some)).numpy()
    return found


def _products(
    experiment: Experiment, gradients: list[_Gradient], layer: int, some: slice
) -> Float[Tensor, " row"]:
    """What features of one layer write, times the gradients there."""
    features = experiment.local.features
    at, here = features.at(layer), experiment.local.frozen.blocks[layer].device
    activation, index = moved(features.activation[some], here), features.on_host.index[some]
    pos = on_device(features.on_host.pos[some], here)
    total = torch.zeros_like(activation)
    for above in range(at.n_written):
        gradient = gradients[layer + above]
        adds = at.points.write == WritePoint.CONTRIBUTION
        slope = gradient.contribution if adds else gradient.output
        rows = at.written(above, index, activation)
        total = total + (rows * moved(slope[0], here).index_select(0, pos)).sum(-1)
    return total


def _gradients(experiment: Experiment) -> list[_Gradient]:
    """By layer, gradients of the targets' value, from one pass and one back."""
    frozen, recording = experiment.local.frozen, experiment.local.recording
    with (
        torch.inference_mode(mode=False),
        torch.enable_grad(),
        float32_products(tensor_cores=False),
        precise_attention(frozen),
        Hooks() as hooks,
    ):
        added = [
            torch.zeros_like(recorded.contribution[None]).requires_grad_()
            for recorded in recording.blocks
            for _ in range(2)
        ]
        values: list[Tensor] = []
        factor = frozen.residual_multiplier
        for layer, block in enumerate(frozen.blocks):
            output, contribution = (partial(_plus, one) for one in added[2 * layer :][:2])
            entering, reading = (partial(_read, experiment, values, layer, b) for b in INNER)
            hooks.before(frozen.modules[layer], entering)
            hooks.before(block.modules.mlp_reader, reading)
            hooks.after(block.modules.mlp, output)
            hooks.after(block.modules.mlp_contribution, contribution, factor=factor)
        last = partial(_read, experiment, values, frozen.n_layers, "unembedding")
        hooks.before(frozen.final_norm_module, last)
        ids = on_device(np.array([recording.prompt.ids]), frozen.device)
        logits_at(frozen, ids, recording.position)
        total = torch.stack([moved(value, frozen.device) for value in values]).sum()
        found = torch.autograd.grad(total, added, allow_unused=True, materialize_grads=True)
    return [_Gradient(*found[row : row + 2]) for row in range(0, len(found), 2)]


def _plus(added: Tensor, given: Tensor, output: Tensor) -> Tensor:
    del given
    return output + added


def _read(
    experiment: Experiment,
    values: list[Tensor],
    layer: int,
    before: str,
    residual: Float[Tensor, "1 pos d_model"],
) -> None:
    """Append the value of the targets that read this residual, weighted by the seed."""
    local, graph = experiment.local, experiment.graph
    covectors, seed = local.targets.covectors, graph.seed[graph.target_rows()]
    here = local.targets.read_at(layer, before)
    if not len(here):
        return
    residual = moved(residual, local.frozen.device_at(layer))
    weight = on_device(seed[here] / seed.sum(), residual.device, residual.dtype)
    own = moved(covectors.take(here).covector, residual.device)
    direction = own * weight[:, None]
    there = residual[0].index_select(0, on_device(covectors.pos[here], residual.device))
    # A copy, since what was recorded in inference mode takes no part in a gradient.
    value = (there * direction.clone()).sum(-1)
    values.append((value * local.norm_scale(here, residual)[0]).sum())
