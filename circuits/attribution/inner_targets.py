"""Targets inside the model: features, inputs of neurons and of attention heads, directions.

A head h of a layer carries W_O W_V x from a position whose normalised residual is x, wherever it
looks.  What it reads there is one number along what it would write: with o = W_O W_V x from this
position, o / |o| · W_O W_V is the covector and |o| the value.

A feature's row is the one that it has in a graph, whether it is active or not; its norm is held.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.features.active import FeatureSource
from circuits.features.neurons import Neurons
from circuits.machine import moved, on_device
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import TargetError
from circuits.recording.record import Recording, entering_attention
from graphs.core.provenance import (
    DirectionReading,
    FeatureReading,
    HeadReading,
    Reading,
)


class Rows(NamedTuple):
    """Covectors on the residuals that targets read, their values, and what biases add to them.

    All are with the first block, whatever layer is read.
    """

    covector: Float[Tensor, "target d_model"]
    value: Float[Tensor, " target"]
    constant: Float[Tensor, " target"]  # part of the value


def inner_row(
    frozen: FrozenModel, recording: Recording, reading: Reading, source: FeatureSource | None
) -> Rows:
    """The row of one target inside the model.

    Raises TargetError for a feature, neuron or head that does not exist.
    """
    layer = reading.layer
    assert layer is not None
    if reading.before == "attention":
        residual = entering_attention(frozen, recording, layer)[reading.pos]
    else:
        residual = recording.blocks[layer].mlp_residual[reading.pos]
    match reading:
        case HeadReading():
            covector, constant = _head(frozen, recording, reading, residual)
        case FeatureReading():
            covector, constant = _feature(frozen, recording, reading, source)
        case _:
            assert isinstance(reading, DirectionReading)  # tokens are read behind the last layer
            vector = on_device(reading.direction.copy(), residual.device, frozen.dtype)
            covector, constant = vector[None], vector.new_zeros(1)
    found = covector, covector @ residual + constant, constant
    return Rows(*(moved(one, frozen.device) for one in found))


def _feature(
    frozen: FrozenModel,
    recording: Recording,
    reading: FeatureReading,
    source: FeatureSource | None,
) -> tuple[Float[Tensor, "1 d_model"], Float[Tensor, " 1"]]:
    here = frozen.blocks[reading.layer].device
    pos, index = on_device(np.array([[reading.pos], [reading.index]]), here)
    if reading.what == "neuron":
        neurons = Neurons().at(frozen, recording, reading.layer)
        _require_below(reading, neurons.width, "neurons")
        return neurons.gate(pos, index)
    if source is None:
        raise TargetError(f"{reading.name} needs the dictionary that it is a feature of.")
    features = source.at(frozen, recording, reading.layer)
    _require_below(reading, features.width, "features")
    return features.rows(pos, index)


def _head(
    frozen: FrozenModel,
    recording: Recording,
    reading: HeadReading,
    residual: Float[Tensor, " d_model"],
) -> tuple[Float[Tensor, "1 d_model"], Float[Tensor, " 1"]]:
    """Covector and constant of what a head reads along what it writes from there."""
    block = frozen.blocks[reading.layer]
    recorded, width = recording.blocks[reading.layer], block.d_head
    _require_below(reading, block.n_heads, "heads")
    head = reading.index
    own = slice(head * width, (head + 1) * width)
    shared = (
        head // (block.n_heads // block.n_kv_heads) * width
    )  # several heads have one value projection
    output, value = block.output[:, own], block.value[shared : shared + width]
    value = value / recorded.attention_denominator[reading.pos]
    constant = block.value_constant[shared : shared + width]
    written = output @ (value @ residual + constant)
    along = (written / written.norm().clamp(min=1e-30)) @ output
    return (along @ value)[None], (along @ constant)[None]


def _require_below(reading: FeatureReading | HeadReading, count: int, what: str) -> None:
    if reading.index >= count:
        raise TargetError(
            f"{reading.name} does not exist: layer {reading.layer} has {count:,} {what}, numbered "
            "from 0."
        )
