"""A transcoder: the dictionary of one layer, which may write across layers and have an affine skip.

Layer l's dictionary reads its MLP's input and writes to layers l, l+1, …, l+n_written-1:

    activation_l = nonlinearity(encoder_l · input_l · read_scale_l + encoder_bias_l)
    output_m     = decoder_bias_m + skip_m · input_m
                 + Σ_l (activation_l + added_{l→m}) · write_scale_{l→m} · decoder_{l→m}

A per-layer transcoder is the case n_written = 1.  Matrices may lie in files, in any number type:
encoders are converted some rows at a time, of decoders only the rows of active features are read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.nonlinearities import Nonlinearity, ReLU

CONVERTED_VALUES = 2**26  # of an encoder, at a time


@dataclass(frozen=True)
class Transcoder:
    """The dictionary of one layer; row f of every matrix belongs to feature f."""

    encoder: Float[Tensor, "d_dict d_model"]
    encoder_bias: Float[Tensor, " d_dict"]
    decoders: tuple[Float[Tensor, "d_dict d_model"], ...]  # by written layer, its own first
    decoder_bias: Float[Tensor, " d_model"]  # of the output at this layer, added once
    nonlinearity: Nonlinearity
    skip: Float[Tensor, "d_model_out d_model"] | None = None  # output += skip @ input
    higher_skips: tuple[Float[Tensor, "d_model_out d_model"], ...] = ()  # to the layers above
    read_scale: float = 1.0
    write_scales: tuple[Float[Tensor, " d_dict"], ...] | None = None  # by written layer
    added: tuple[Float[Tensor, " d_dict"], ...] | None = None  # by written layer, where active

    @property
    def d_dict(self) -> int:
        """Features."""
        return len(self.encoder_bias)

    @property
    def n_written(self) -> int:
        """Layers written to."""
        return len(self.decoders)

    def skip_to(self, offset: int) -> Float[Tensor, "d_model_out d_model"] | None:
        """The matrix from what is read to the output of the layer that is `offset` above."""
        if offset == 0:
            return self.skip
        return self.higher_skips[offset - 1] if offset <= len(self.higher_skips) else None

    def pre_activations(
        self, inputs: Float[Tensor, "*batch d_model"]
    ) -> Float[Tensor, "*batch d_dict"]:
        """What the nonlinearity is given, in the number type and on the device of the inputs."""
        return pre_activations(inputs * self.read_scale, self.encoder, self.encoder_bias)

    def listened(
        self, index: Int[Tensor, " row"], like: Float[Tensor, ...]
    ) -> Float[Tensor, "row d_model"]:
        """Encoder rows, as covectors on what is read."""
        return self.encoder[index.to(self.encoder.device)].to(like) * self.read_scale

    def spoken(
        self,
        offset: int,
        index: Int[Tensor, " row"],
        activation: Float[Tensor, " row"],
    ) -> Float[Tensor, "row d_model"]:
        """What features of these activations write to the layer that is `offset` above."""
        place = index.to(self.encoder.device)
        if self.added is not None:
            activation = activation + self.added[offset][place].to(activation)
        if self.write_scales is not None:
            activation = activation * self.write_scales[offset][place].to(activation)
        return activation[:, None] * self.decoders[offset][place].to(activation)

    def written(
        self, offset: int, activation: Float[Tensor, "*batch d_dict"]
    ) -> Float[Tensor, "*batch d_model"]:
        """What all features write to the layer that is `offset` above."""
        if self.added is not None:
            activation = activation + self.added[offset].to(activation) * (activation > 0)
        if self.write_scales is not None:
            activation = activation * self.write_scales[offset].to(activation)
        return activation @ self.decoders[offset].to(activation)


def nothing(d_model: int) -> Transcoder:
    """The transcoder of a layer that a set does not cover: all is error."""
    rows = torch.zeros(0, d_model)
    return Transcoder(rows, torch.zeros(0), (rows,), torch.zeros(d_model), ReLU())


def pre_activations(
    inputs: Float[Tensor, "*batch d_in"],
    encoder: Float[Tensor, "d_dict d_in"],
    bias: Float[Tensor, " d_dict"],
) -> Float[Tensor, "*batch d_dict"]:
    """encoder · input + bias in the inputs' number type, some rows of the encoder at a time."""
    rows = max(1, CONVERTED_VALUES // max(1, encoder.shape[1]))
    parts = [
        torch.nn.functional.linear(inputs, some.to(inputs), biases.to(inputs))
        for some, biases in zip(encoder.split(rows), bias.split(rows), strict=True)
    ]
    return torch.cat(parts, -1)
