"""The loss of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.training.dictionary import EVERY, TrainedDictionary
from circuits.training.settings import Sparsity, TrainSettings
from circuits.training.sparsity import active, batch_top_k, jump_relu, top_k

SATURATION = 4.0  # of the tanh penalty: a feature that writes a quarter of a unit counts as on


@dataclass(frozen=True)
class Step:
    """One batch: the loss, and the features' activations."""

    loss: Float[Tensor, ""]
    activations: Float[Tensor, "layer batch feat"]
    unexplained: Float[Tensor, " layer"]  # normalised MSE


def step_loss(
    dictionary: TrainedDictionary,
    settings: TrainSettings,
    inputs: Float[Tensor, "layer batch d_model"],
    outputs: Float[Tensor, "layer batch d_model"],
    dead: Bool[Tensor, "layer feat"],
    frequency: Float[Tensor, "layer feat"],
    penalty_share: float,
) -> Step:
    """The loss of one batch; `penalty_share`, 0 to 1, scales the sparsity penalty.

    reconstruction  mean over layers of |output - reconstruction|² / |output|²
    sparsity        jumprelu: (L0 / target - 1)²
                    tanh: Σ tanh(c · |decoder| · activation) / target, the methods paper's 3.1
    frequency       activations of features that fire on too many tokens
    revival         what the strongest dead features leave of the error
    """
    inputs = dictionary.inputs.apply_to(inputs)
    outputs = dictionary.outputs.apply_to(outputs)
    pre = dictionary.pre_activations(inputs)
    threshold = dictionary.log_threshold.exp()[:, None]
    activations = activations_of(settings, pre, threshold)
    linear = dictionary.linear(inputs)

    # Encoders stay in full precision: rounded values would tie at the threshold.
    def written(activations: Tensor, some: slice | Tensor = EVERY) -> Tensor:
        with torch.autocast(outputs.device.type, torch.bfloat16, enabled=settings.bfloat16):
            return dictionary.written(activations, some)

    error = outputs - linear - written(activations)
    unexplained = _relative(error, outputs)
    loss = unexplained.mean()
    for share in settings.prefixes:
        first = slice(max(1, int(share * settings.d_dict)))
        part = outputs - linear - written(activations[..., first], first)
        loss = loss + _relative(part, outputs).mean() / len(settings.prefixes)
    penalty = _penalty(settings, dictionary, activations, pre, threshold)
    loss = loss + penalty_share * settings.penalty * penalty
    often = (frequency > settings.high_frequency).to(pre.dtype)[:, None]
    loss = loss + settings.frequency_penalty * (activations * often).mean((0, 1)).sum()
    if settings.revival > 0 and bool(dead.any()):
        some = dead.any(0).nonzero()[:, 0]
        inactive = torch.where(dead[:, None, some], pre[..., some], -torch.inf)
        revived = written(top_k(inactive, max(1, round(settings.l0))), some)
        remaining = error.detach()
        loss = loss + settings.revival * _relative(remaining - revived, remaining).mean()
    return Step(loss, activations.detach(), unexplained.detach())


def activations_of(
    settings: TrainSettings,
    pre: Float[Tensor, "layer batch feat"],
    threshold: Float[Tensor, "layer 1 feat"],
) -> Float[Tensor, "layer batch feat"]:
    """Activations in training."""
    if settings.sparsity == Sparsity.TOP_K:
        return top_k(pre, round(settings.l0))
    if settings.sparsity == Sparsity.BATCH_TOP_K:
        return batch_top_k(pre, settings.l0)
    return jump_relu(pre, threshold, settings.bandwidth)


def _penalty(
    settings: TrainSettings,
    dictionary: TrainedDictionary,
    activations: Float[Tensor, "layer batch feat"],
    pre: Float[Tensor, "layer batch feat"],
    threshold: Float[Tensor, "layer 1 feat"],
) -> Float[Tensor, ""]:
    if settings.sparsity == Sparsity.JUMP_RELU:
        l0 = active(pre, threshold, settings.bandwidth).sum(2).mean()
        return (l0 / settings.l0 - 1).square()
    if settings.sparsity == Sparsity.TANH:
        sizes = activations * dictionary.decoder_norms()[:, None]
        return torch.tanh(SATURATION * sizes).sum(2).mean() / settings.l0
    return activations.new_zeros(())


def _relative(error: Tensor, whole: Tensor) -> Float[Tensor, " layer"]:
    return error.square().mean((1, 2)) / whole.square().mean((1, 2)).clamp(min=1e-12)
