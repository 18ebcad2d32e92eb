"""Start: the dictionary with which training begins, made from examples.

Each feature explains one token alone, chosen far from the others.  From random directions training
ends with codes in which many features share a concept; they explain as much variance but cannot be
interpreted (benchmarks/README.md has the numbers).

Several features are active at a token, and each would explain all of it.  So the activations of a
layer are scaled by the one factor with which their sum comes closest to the outputs, by least
squares: Σ output · reconstruction / Σ |reconstruction|².
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.training.dictionary import Scales, TrainedDictionary
from circuits.training.losses import activations_of
from circuits.training.settings import TrainSettings

EXAMPLE_TOKENS = 16_384  # from which examples are chosen
RIDGE = 0.1  # of the mean variance
CALIBRATION_TOKENS = 2048  # on which thresholds and sizes are set
ROUNDS = 3  # of scaling: with other sizes other features are among the largest of a batch
LEAST = 1e-3  # of a threshold, and of a factor


@torch.no_grad()
def started(
    settings: TrainSettings,
    inputs: Float[Tensor, "layer token d_model"],
    outputs: Float[Tensor, "layer token d_model"],
) -> TrainedDictionary:
    """The dictionary before its first step, from what MLPs read and wrote at some tokens."""
    n_layers, _, d_model = inputs.shape
    dictionary = TrainedDictionary(settings, n_layers, d_model).to(inputs)
    dictionary.inputs, dictionary.outputs = Scales.of(inputs), Scales.of(outputs)
    generator = torch.Generator(inputs.device).manual_seed(settings.seed)
    encoder, directions = from_examples(
        dictionary.inputs.apply_to(inputs[:, :EXAMPLE_TOKENS]),
        dictionary.outputs.apply_to(outputs[:, :EXAMPLE_TOKENS]),
        settings.d_dict,
        generator,
    )
    dictionary.encoder.copy_(encoder)
    for layer, decoder in enumerate(dictionary.decoders):
        decoder[-1] = directions[layer]  # to its own layer, the last of those that write to it
    read = dictionary.inputs.apply_to(inputs[:, :CALIBRATION_TOKENS])
    wrote = dictionary.outputs.apply_to(outputs[:, :CALIBRATION_TOKENS])
    _set_thresholds(dictionary, settings.l0 / settings.d_dict, read)
    for _ in range(ROUNDS):
        _fit_sizes(dictionary, settings, read, wrote)
    return dictionary


def from_examples(
    inputs: Float[Tensor, "layer token d_model"],
    outputs: Float[Tensor, "layer token d_model"],
    d_dict: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "layer feat d_model"], Float[Tensor, "layer feat d_model"]]:
    """Encoders and decoders that each explain one token alone, chosen to be far apart."""
    encoders, decoders = list[Tensor](), list[Tensor]()
    for read, written in zip(inputs, outputs, strict=True):
        chosen = far_apart(written, d_dict, generator)
        covariance = read.T @ read / len(read)
        ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(read)
        matched = torch.linalg.solve(covariance + ridge, read[chosen].T).T
        size = written[chosen].norm(dim=1, keepdim=True)
        at_own = (matched * read[chosen]).sum(1, keepdim=True)
        encoders.append(matched * size / at_own.clamp(min=1e-9))
        decoders.append(written[chosen] / size.clamp(min=1e-9))
    return torch.stack(encoders), torch.stack(decoders)


def far_apart(
    vectors: Float[Tensor, "token d_model"], count: int, generator: torch.Generator
) -> Int[Tensor, " chosen"]:
    """Rows chosen one by one, by their squared distance to those chosen (k-means++)."""
    sizes = vectors.square().sum(1)
    nearest = sizes.clone()  # squared distance to 0, where no feature is needed
    chosen: list[Tensor] = []
    for _ in range(count):
        row = torch.multinomial(nearest + 1e-9, 1, generator=generator)
        chosen.append(row)
        distance = sizes + sizes[row] - 2 * (vectors @ vectors[row[0]])
        nearest = torch.minimum(nearest, distance.clamp(min=0))
    return torch.cat(chosen)


def _set_thresholds(
    dictionary: TrainedDictionary, share: float, inputs: Float[Tensor, "layer token d_model"]
) -> None:
    """Thresholds that every feature exceeds on this share of tokens."""
    pre = dictionary.pre_activations(inputs)
    count = max(1, round((1 - share) * pre.shape[1]))
    dictionary.log_threshold.copy_(pre.kthvalue(count, dim=1).values.clamp(min=LEAST).log())


def _fit_sizes(
    dictionary: TrainedDictionary,
    settings: TrainSettings,
    inputs: Float[Tensor, "layer token d_model"],
    outputs: Float[Tensor, "layer token d_model"],
) -> None:
    """Scale the activations of each layer so that they explain as much as they can."""
    pre = dictionary.pre_activations(inputs)
    threshold = dictionary.log_threshold.exp()[:, None]
    written = dictionary.written(activations_of(settings, pre, threshold))
    fits = (outputs * written).sum((1, 2)) / written.square().sum((1, 2)).clamp(min=1e-12)
    factor = torch.where(fits > 0, fits, 1.0).clamp(min=LEAST)[:, None]
    dictionary.encoder *= factor[..., None]
    dictionary.log_threshold += factor.log()
