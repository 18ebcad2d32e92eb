"""Start: the dictionary with which training begins, made from examples.

Each feature explains one token alone, chosen far from the others.  From random directions training
ends with codes in which many features share a concept; they explain as much variance but cannot be
interpreted (benchmarks/README.md has the numbers).

Several features are active at a token, and each would explain all of it.  So the activations of a
layer are scaled by the one factor with which their sum comes closest to the outputs, by least
squares: Σ output · reconstruction / Σ |reconstruction|².  Begun larger than that (`start_size`),
features that explain a token together are pushed apart, and more of them keep their example.

Where there are more features than tokens, some have the same example.  Equal features would have
equal gradients, and stay equal: so all but the first read the example with noise.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.training.dictionary import Scales, TrainedDictionary, feature_axis
from circuits.training.encoding import encoded, made_plan
from circuits.training.processes import ALONE, Group, Processes
from circuits.training.settings import TrainSettings

EXAMPLE_TOKENS = 16_384  # from which examples are chosen, at least
NOISE = 0.5  # beside entries of size 1, in an example that another feature has
CANDIDATES = 256  # drawn together
EVEN = 1e-9  # added to squared distances, for rows without any
RIDGE = 0.1  # of the mean variance
CALIBRATION_TOKENS = 2048  # on which thresholds and sizes are set
ROUNDS = 3  # of scaling: with other sizes other features are among the largest of a batch
LEAST = 1e-3  # of a threshold, and of a factor


@torch.no_grad()
def started(
    settings: TrainSettings,
    inputs: Float[Tensor, "layer token d_model"],
    outputs: Float[Tensor, "layer token d_model"],
    processes: Processes = ALONE,
) -> TrainedDictionary:
    """The dictionary before its first step, from what MLPs read and wrote at some tokens.

    Of several processes each starts from all of these tokens, whatever they divide later.
    """
    n_layers, _, d_model = inputs.shape
    features = processes.features
    dictionary = TrainedDictionary(settings, n_layers, d_model, Processes(features=features))
    dictionary.to(inputs)
    dictionary.inputs, dictionary.outputs = Scales.of(inputs), Scales.of(outputs)
    generator = torch.Generator().manual_seed(settings.seed)
    some = slice(example_tokens(settings.d_dict))
    for layer, (read, wrote) in enumerate(zip(inputs[:, some], outputs[:, some], strict=True)):
        encoder, directions = from_examples(
            dictionary.inputs.apply_at(layer, read),
            dictionary.outputs.apply_at(layer, wrote),
            settings.d_dict,
            generator,
            features,
        )
        dictionary.encoders[layer].copy_(encoder)
        dictionary.decoders[layer][:, 0] = directions
    read = dictionary.inputs.apply_to(inputs[:, :CALIBRATION_TOKENS])
    wrote = dictionary.outputs.apply_to(outputs[:, :CALIBRATION_TOKENS])
    _set_thresholds(dictionary, settings.l0 / settings.d_dict, read)
    for _ in range(ROUNDS):
        _fit_sizes(dictionary, read, wrote)
    _scale(dictionary, torch.full((n_layers,), settings.start_size))
    dictionary.processes = processes
    for name, values in dictionary.state_dict().items():
        if features.size == 1 or feature_axis(name) is None:
            processes.everyone.take_from_first(values)
    return dictionary


def example_tokens(d_dict: int) -> int:
    """Tokens from which examples are chosen: twice as many as features, and EXAMPLE_TOKENS."""
    return max(EXAMPLE_TOKENS, 2 * d_dict)


def from_examples(
    inputs: Float[Tensor, "token d_model"],
    outputs: Float[Tensor, "token d_model"],
    d_dict: int,
    generator: torch.Generator,
    features: Group = ALONE.features,
) -> tuple[Float[Tensor, "feat d_model"], Float[Tensor, "feat d_model"]]:
    """Encoders and decoders of a layer that each explain one token alone, chosen far apart."""
    whole = features.take_from_first(far_apart(outputs, d_dict, generator))
    chosen = features.own(whole)
    read, size = inputs[chosen], outputs[chosen].norm(dim=1, keepdim=True)
    again = _repeated(whole)
    if again.any():
        noise = NOISE * torch.randn(d_dict, inputs.shape[1], generator=generator)
        read += features.own(again[:, None] * noise.to(read))
    covariance = inputs.T @ inputs / len(inputs)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance)).to(read)
    matched = torch.linalg.solve(covariance + ridge, read.T).T
    at_own = (matched * read).sum(1, keepdim=True)
    return matched * size / at_own.clamp(min=1e-9), outputs[chosen] / size.clamp(min=1e-9)


def _repeated(chosen: Int[Tensor, " chosen"]) -> Bool[Tensor, " chosen"]:
    """Whether the same was chosen before."""
    order = chosen.argsort(stable=True)
    inner = chosen[order]
    found = torch.zeros_like(chosen, dtype=torch.bool)
    found[order[1:]] = inner[1:] == inner[:-1]
    return found


def far_apart(
    vectors: Float[Tensor, "token d_model"], count: int, generator: torch.Generator
) -> Int[Tensor, " chosen"]:
    """Rows chosen one by one, by their squared distance to 0 and those chosen (k-means++).

    Candidates are drawn many at a time by the distances at hand, and each is accepted with the
    share that is left of its distance: so accepted rows have the probabilities of rows that are
    drawn one by one, and distances to all are brought up to date by one product.
    """
    sizes = vectors.square().sum(1)
    nearest = sizes.clone()  # to 0, where no feature is needed
    chosen: list[Tensor] = []
    while (missing := count - sum(map(len, chosen))) > 0:
        drawn = min(CANDIDATES, missing + missing // 8 + 1)
        draw, luck = torch.rand(2, drawn, generator=generator, dtype=torch.float64)
        # Random numbers are the same on every device.
        weights = (nearest + EVEN).cumsum(0)
        aims = draw.to(weights) * weights[-1]
        candidates = torch.searchsorted(weights, aims).clamp(max=len(vectors) - 1)
        among = vectors[candidates]
        apart = _squared_distances(among, among, sizes[candidates], sizes[candidates])
        left = nearest[candidates] + EVEN
        accepted = _accepted(apart.cpu().numpy(), left.cpu().numpy(), luck.numpy())[:missing]
        rows = candidates[torch.from_numpy(accepted).to(candidates.device)]
        chosen.append(rows)
        distances = _squared_distances(vectors, vectors[rows], sizes, sizes[rows])
        nearest = torch.minimum(nearest, distances.amin(1))
    return torch.cat(chosen)


def _accepted(
    apart: Float[ndarray, "drawn drawn"],
    nearest: Float[ndarray, " drawn"],
    luck: Float[ndarray, " drawn"],
) -> Int[ndarray, " accepted"]:
    """Which candidates are taken, each by what the ones before it leave of its distance."""
    left, accepted = nearest.copy(), list[int]()
    for number, least in enumerate(luck * nearest):
        if left[number] > least:
            accepted.append(number)
            np.minimum(left, apart[number] + EVEN, out=left)
    return np.array(accepted)


def _squared_distances(
    one: Float[Tensor, "row d_model"],
    other: Float[Tensor, "column d_model"],
    one_sizes: Float[Tensor, " row"],
    other_sizes: Float[Tensor, " column"],
) -> Float[Tensor, "row column"]:
    products = one_sizes[:, None] + other_sizes - 2 * (one @ other.T)
    return products.clamp(min=0)


def _set_thresholds(
    dictionary: TrainedDictionary, share: float, inputs: Float[Tensor, "layer token d_model"]
) -> None:
    """Thresholds that every feature exceeds on this share of tokens."""
    count = max(1, round((1 - share) * inputs.shape[1]))
    for layer, read in enumerate(inputs):
        pre = dictionary.pre_activations(layer, read, exact=True)
        least = pre.kthvalue(count, dim=0).values
        dictionary.log_threshold[layer] = least.clamp(min=LEAST).log()


def _fit_sizes(
    dictionary: TrainedDictionary,
    inputs: Float[Tensor, "layer token d_model"],
    outputs: Float[Tensor, "layer token d_model"],
) -> None:
    """Scale the activations of each layer so that they explain as much as they can."""
    found, _ = encoded(dictionary, inputs, made_plan(dictionary, inputs))
    written = dictionary.written(found.codes, found.activations)
    fits = (outputs * written).sum((1, 2)) / written.square().sum((1, 2)).clamp(min=1e-12)
    _scale(dictionary, torch.where(fits > 0, fits, 1.0).clamp(min=LEAST))


def _scale(dictionary: TrainedDictionary, factors: Float[Tensor, " layer"]) -> None:
    """Scale the activations of each layer, thresholds with them."""
    for layer, factor in enumerate(factors.to(dictionary.log_threshold)):
        dictionary.encoders[layer] *= factor
        dictionary.log_threshold[layer] += factor.log()
