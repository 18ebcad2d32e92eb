"""Dictionaries in training: in normalised units, decoders by the layer that they write to.

    pre_l    = encoder_l · (x_l - mean_l) / scale_l + bias_l
    output_m = (Σ_{l ≤ m} activation_l · decoder_{l→m} + skip_m · input_m + bias_m) · scale'_m
               + mean'_m

`folded` gives plain transcoders with means and scales folded in.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.transcoder import JumpReLU, Transcoder
from circuits.training.settings import Kind, TrainSettings

EVERY = slice(None)


class Scales(nn.Module):
    """Per layer the mean of vectors, and the root mean square after centring."""

    mean: Tensor  # (layer, d_model)
    scale: Tensor  # (layer,)

    def __init__(self, n_layers: int, d_model: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_layers, d_model))
        self.register_buffer("scale", torch.ones(n_layers))

    @classmethod
    def of(cls, vectors: Float[Tensor, "layer token d_model"]) -> Scales:
        """Those of some vectors."""
        scales = cls(vectors.shape[0], vectors.shape[2]).to(vectors)
        scales.mean.copy_(vectors.mean(1))
        spread = (vectors - scales.mean[:, None]).square().mean((1, 2)).sqrt()
        scales.scale.copy_(torch.where(spread > 0, spread, 1.0))
        return scales

    def apply_to(self, vectors: Tensor) -> Float[Tensor, "layer token d_model"]:
        """Vectors with mean 0 and entries of size 1."""
        return (vectors - self.mean[:, None]) / self.scale[:, None, None]


class TrainedDictionary(nn.Module):
    """Parameters of one transcoder per layer, or of one cross-layer transcoder."""

    def __init__(self, settings: TrainSettings, n_layers: int, d_model: int) -> None:
        """All parameters 0; `start.started` gives them values, or a checkpoint."""
        super().__init__()
        d_dict, crossing = settings.d_dict, settings.kind == Kind.CROSS_LAYER
        self.inputs, self.outputs = Scales(n_layers, d_model), Scales(n_layers, d_model)
        self.encoder = nn.Parameter(torch.zeros(n_layers, d_dict, d_model))
        self.encoder_bias = nn.Parameter(torch.zeros(n_layers, d_dict))
        self.log_threshold = nn.Parameter(torch.zeros(n_layers, d_dict))
        self.decoders = nn.ParameterList(  # per written layer (source layer, d_dict, d_model)
            torch.zeros(layer + 1 if crossing else 1, d_dict, d_model) for layer in range(n_layers)
        )
        self.decoder_bias = nn.Parameter(torch.zeros(n_layers, d_model))
        self.skip = (
            nn.Parameter(torch.zeros(n_layers, d_model, d_model))
            if settings.kind == Kind.SKIP
            else None
        )

    def sources(self, layer: int) -> slice:
        """Layers whose features write to this one, in the order of its decoder."""
        return slice(layer + 1 - len(self.decoders[layer]), layer + 1)

    def pre_activations(
        self, inputs: Float[Tensor, "layer batch d_model"]
    ) -> Float[Tensor, "layer batch feat"]:
        """From normalised inputs."""
        return torch.baddbmm(self.encoder_bias[:, None], inputs, self.encoder.mT)

    def written(
        self, activations: Float[Tensor, "layer batch some"], some: slice | Tensor = EVERY
    ) -> Float[Tensor, "layer batch d_model"]:
        """What features add to the normalised outputs; `some` selects which ones are given."""
        outputs: list[Tensor] = []
        for layer, decoder in enumerate(self.decoders):
            rows = activations[self.sources(layer)].transpose(0, 1).flatten(1)
            outputs.append(rows @ decoder[:, some].flatten(0, 1))
        return torch.stack(outputs)

    def linear(
        self, inputs: Float[Tensor, "layer batch d_model"]
    ) -> Float[Tensor, "layer batch d_model"]:
        """Biases and skips."""
        bias = self.decoder_bias[:, None]
        if self.skip is None:
            return bias.expand_as(inputs)
        return torch.baddbmm(bias, inputs, self.skip.mT)

    def decoder_norms(self) -> Float[Tensor, "layer feat"]:
        """Norm of what a feature writes, over all layers that it writes to."""
        n_layers = len(self.decoders)
        squares = self.encoder.new_zeros(n_layers, self.encoder.shape[1])
        for layer, decoder in enumerate(self.decoders):
            squares[self.sources(layer)] += decoder.square().sum(2)
        return squares.sqrt()

    @torch.no_grad()
    def normalise_decoders(self) -> None:
        """Scale every feature's decoder to norm 1, and its encoder and threshold to compensate."""
        norms = self.decoder_norms().clamp(min=1e-12)
        for layer, decoder in enumerate(self.decoders):
            decoder /= norms[self.sources(layer), :, None]
        self.encoder *= norms[:, :, None]
        self.encoder_bias *= norms
        self.log_threshold += norms.log()

    @torch.no_grad()
    def folded(self, threshold: Float[Tensor, "layer feat"]) -> tuple[Transcoder, ...]:
        """Plain transcoders of the model's unnormalised vectors, with these thresholds."""
        n_layers = len(self.decoders)
        read, wrote = self.inputs, self.outputs
        layers: list[Transcoder] = []
        for layer in range(n_layers):
            encoder = self.encoder[layer] / read.scale[layer]
            decoders = tuple(
                rows[layer - self.sources(written).start] * wrote.scale[written]
                for written, rows in enumerate(self.decoders)
                if self.sources(written).start <= layer <= written
            )
            bias = self.decoder_bias[layer] * wrote.scale[layer] + wrote.mean[layer]
            skip = None
            if self.skip is not None:
                skip = self.skip[layer] * (wrote.scale[layer] / read.scale[layer])
                bias = bias - skip @ read.mean[layer]
            layers.append(
                Transcoder(
                    encoder=encoder,
                    encoder_bias=self.encoder_bias[layer] - encoder @ read.mean[layer],
                    decoders=decoders,
                    decoder_bias=bias,
                    nonlinearity=JumpReLU(threshold[layer].clone()),
                    skip=skip,
                )
            )
        return tuple(layers)
