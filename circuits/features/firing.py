"""Which features of a dictionary fire on a prompt, strongest first, token by token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from circuits.features.autoencoders import AutoencoderSet, autoencoder_activations
from circuits.features.transcoder_set import TranscoderSet
from circuits.machine import in_float64
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.recording.record import record
from graphs.naming.names import description_label


@dataclass(frozen=True)
class Firing:
    """One feature at one token."""

    pos: int
    layer: int
    index: int
    activation: float
    label: str  # by `graphs.naming`, without neighbours; may be empty


def strongest(
    frozen: FrozenModel,
    prompt: Prompt,
    dictionary: TranscoderSet | AutoencoderSet,
    layers: set[int],
    top: int,
) -> list[Firing]:
    """The strongest features of every token and layer, sorted by token, layer and activation.

    An empty set of layers means all.  Raises DictionaryMismatch for a dictionary of another model.
    """
    layer, pos, index, activation = _columns(frozen, prompt, dictionary)
    # By token, then layer, then activation from the largest.
    order = np.lexsort((index, -activation, layer, pos))
    found: list[Firing] = []
    rank, previous = 0, (-1, -1)
    for row in order.tolist():
        place = int(pos[row]), int(layer[row])
        rank = rank + 1 if place == previous else 0
        previous = place
        if rank < top and (not layers or place[1] in layers):
            label = _label(dictionary, place[1], int(index[row]))
            found.append(Firing(*place, int(index[row]), float(activation[row]), label))
    return found


def _columns(
    frozen: FrozenModel, prompt: Prompt, dictionary: TranscoderSet | AutoencoderSet
) -> tuple[ndarray, ...]:
    """Layer, position, index and activation of every active feature."""
    with torch.inference_mode():
        if isinstance(dictionary, TranscoderSet):
            features = dictionary.active(frozen, record(frozen, prompt))
            own = features.on_host
            return own.layer, own.pos, own.index, features.numbers[0].astype(np.float64)
        places: list[Tensor] = []  # layer, position and index
        values: list[Tensor] = []
        for autoencoder, activations in autoencoder_activations(frozen, prompt, dictionary):
            pos, index = (activations > 0).nonzero(as_tuple=True)
            layer = torch.full_like(pos, autoencoder.layer)
            places.append(torch.stack([layer, pos, index]).cpu())
            values.append(in_float64(activations[pos, index]))
        return *torch.cat(places, 1).numpy(), torch.cat(values).numpy()


def _label(dictionary: TranscoderSet | AutoencoderSet, layer: int, index: int) -> str:
    if isinstance(dictionary, AutoencoderSet):
        return ""
    description = dictionary.describe(layer, index)
    return "" if description is None else description_label(description)
