"""What is added at one layer on a prompt: by features, by constants, and what these leave over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.active import ActiveFeatures, LinearPath
from circuits.model.frozen import DamagedWeights
from circuits.recording.record import Recording


class Written(NamedTuple):
    """The parts of an MLP's contribution."""

    features: Int[Tensor, " feat"]  # those that write here
    vectors: Float[Tensor, "feat d_model"]  # what each adds
    constant: Float[Tensor, "pos d_model"]
    linear: dict[int, LinearPath]  # by the layer that is read
    error: Float[Tensor, "pos d_model"]  # the rest, at positions with features


def written_at(recording: Recording, features: ActiveFeatures, layer: int) -> Written:
    """The parts of a layer's contribution.  Raises DamagedWeights if they overflow."""
    context = recording.prompt.context_only
    writing = ((features.layer <= layer) & (features.last_written >= layer)).nonzero()[:, 0]
    vectors = features.rows.decoder(layer, writing)
    linear = features.rows.linear(layer)
    constant = features.rows.constant(layer).clone()
    error = recording.blocks[layer].contribution - constant
    for read, path in linear.items():
        error[context:] -= path.forward(recording.blocks[read].mlp_residual[context:], context)
    error.index_add_(0, features.pos[writing], vectors, alpha=-1)
    if not bool(torch.isfinite(error).all()):
        raise DamagedWeights(
            f"What {features.identity.name!r} writes at layer {layer} overflows: its weights are "
            "damaged or not meant for this model."
        )
    return Written(writing, vectors, constant, linear, error)
