"""The loss of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Encoded, Plan, Revived, encoded
from circuits.training.processes import Group
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
    settings, processes = dictionary.settings, dictionary.processes
    inputs = dictionary.inputs.apply_to(inputs)
    outputs = dictionary.outputs.apply_to(outputs)
    found, dead = encoded(dictionary, inputs, plan)
    wanted = outputs - dictionary.linear(inputs)
    written, revived = _written(dictionary, found, dead)
    error = wanted - written
    unexplained = relative(error, outputs, processes.tokens)
    loss = unexplained.mean()
    for share in settings.prefixes:
        n_own = processes.features.n_own(max(1, int(share * settings.d_dict)))
        alone = [
            values * (code.feature < n_own)
            for code, values in zip(found.codes, found.activations, strict=True)
        ]
        part = wanted - dictionary.written(found.codes, alone)
        left = relative(part, outputs, processes.tokens)
        loss = loss + left.mean() / len(settings.prefixes)
    loss = loss + penalty_share * settings.penalty * penalty_of(dictionary, found)
    often = (frequency > settings.high_frequency).to(loss.dtype)
    sizes = (
        (values * often[layer][code.feature]).sum()
        for layer, (code, values) in enumerate(zip(found.codes, found.activations, strict=True))
    )
    size = processes.whole(sum(sizes, loss.new_zeros(())))
    n_layers, n_tokens = inputs.shape[:2]
    loss = loss + settings.frequency_penalty * size / (n_layers * n_tokens)
    if revived is not None:
        remaining = error.detach()
        left = relative(remaining - revived, remaining, processes.tokens)
        loss = loss + settings.revival * left.mean()
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
        return (dictionary.processes.whole(found.l0) / settings.l0 - 1).square()
    if settings.sparsity == Sparsity.TANH:
        norms = dictionary.decoder_norms()
        sizes = [
            torch.tanh(SATURATION * values * norms[layer][code.feature]).sum()
            for layer, (code, values) in enumerate(zip(found.codes, found.activations, strict=True))
        ]
        n_tokens = len(found.codes[0].start)
        total = dictionary.processes.whole(torch.stack(sizes).sum())
        return total / (len(sizes) * n_tokens * settings.l0)
    return dictionary.encoder_bias.new_zeros(())


def relative(
    error: Float[Tensor, "*layer token d_model"],
    whole: Float[Tensor, "*layer token d_model"],
    tokens: Group,
) -> Float[Tensor, "*layer"]:
    """Mean square of an error over that of what it is an error of."""
    left, all_of_it = (tokens.mean(one.square().mean((-2, -1))) for one in (error, whole))
    return left / all_of_it.clamp(min=1e-12)
