"""The loss of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Encoded, Plan, Revived, encoded
from circuits.training.settings import Sparsity

SATURATION = 4.0  # of the tanh penalty: a feature that writes a quarter of a unit counts as on


@dataclass(frozen=True)
class Step:
    """One batch: the loss, and the features' activations."""

    loss: Float[Tensor, ""]
    encoded: Encoded
    unexplained: Float[Tensor, " layer"]  # normalised MSE


def step_loss(
    dictionary: TrainedDictionary,
    inputs: Float[Tensor, "layer batch d_model"],
    outputs: Float[Tensor, "layer batch d_model"],
    plan: Plan,
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
    settings = dictionary.settings
    inputs = dictionary.inputs.apply_to(inputs)
    outputs = dictionary.outputs.apply_to(outputs)
    found, dead = encoded(dictionary, inputs, plan)
    wanted = outputs - dictionary.linear(inputs)
    written, revived = _written(dictionary, found, dead)
    error = wanted - written
    unexplained = _relative(error, outputs)
    loss = unexplained.mean()
    for share in settings.prefixes:
        first = max(1, int(share * settings.d_dict))
        alone = [
            values * (code.feature < first)
            for code, values in zip(found.codes, found.activations, strict=True)
        ]
        part = wanted - dictionary.written(found.codes, alone)
        loss = loss + _relative(part, outputs).mean() / len(settings.prefixes)
    loss = loss + penalty_share * settings.penalty * penalty_of(dictionary, found)
    often = (frequency > settings.high_frequency).to(loss.dtype)
    size = sum(
        (values * often[layer][code.feature]).sum()
        for layer, (code, values) in enumerate(zip(found.codes, found.activations, strict=True))
    )
    n_layers, n_tokens = inputs.shape[:2]
    loss = loss + settings.frequency_penalty * size / (n_layers * n_tokens)
    if revived is not None:
        remaining = error.detach()
        loss = loss + settings.revival * _relative(remaining - revived, remaining).mean()
    return Step(loss, found.detached(), unexplained.detach())


def _written(
    dictionary: TrainedDictionary, found: Encoded, dead: Revived | None
) -> tuple[Float[Tensor, "layer token d_model"], Float[Tensor, "layer token d_model"] | None]:
    """What the batch's entries write, and what dead features would."""
    if dead is None:
        return dictionary.written(found.codes, found.activations), None
    values = [torch.cat(pair) for pair in zip(found.activations, dead.activations, strict=True)]
    written, revived = dictionary.written(dead.codes, values).chunk(2, 1)
    return written, revived


def penalty_of(dictionary: TrainedDictionary, found: Encoded) -> Float[Tensor, ""]:
    """The sparsity penalty, without its weight."""
    settings = dictionary.settings
    if settings.sparsity == Sparsity.JUMP_RELU:
        return (found.l0 / settings.l0 - 1).square()
    if settings.sparsity == Sparsity.TANH:
        norms = dictionary.decoder_norms()
        sizes = [
            torch.tanh(SATURATION * values * norms[layer][code.feature]).sum()
            for layer, (code, values) in enumerate(zip(found.codes, found.activations, strict=True))
        ]
        n_tokens = len(found.codes[0].start)
        return torch.stack(sizes).sum() / (len(sizes) * n_tokens * settings.l0)
    return dictionary.encoder_bias.new_zeros(())


def _relative(error: Tensor, whole: Tensor) -> Float[Tensor, " layer"]:
    return error.square().mean((1, 2)) / whole.square().mean((1, 2)).clamp(min=1e-12)
