"""Dictionaries in training: in normalised units, decoders by the layer that they write to.

    pre_l    = encoder_l · (x_l - mean_l) / scale_l + bias_l
    output_m = (Σ_{l ≤ m} activation_l · decoder_{l→m} + skip_m · input_m + bias_m) · scale'_m
               + mean'_m

`folded` gives plain transcoders with means and scales folded in.

Features are initialised from examples: each explains one token alone, chosen far from the others.
From random directions training ends with codes in which many features share a concept; they explain
as much variance but cannot be interpreted (benchmarks/README.md has the numbers).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.features.transcoder import JumpReLU, Transcoder
from circuits.training.settings import Kind, TrainSettings

EVERY = slice(None)
EXAMPLE_TOKENS = 16_384  # from which examples are chosen
RIDGE = 0.1  # of the mean variance
CALIBRATION_TOKENS = 2048  # on which initial thresholds are set


class Scales(nn.Module):
    """Per layer the mean of vectors, and the root mean square after centring."""

    mean: Tensor  # (layer, d_model)
    scale: Tensor  # (layer,)

    def __init__(self, vectors: Float[Tensor, "layer token d_model"]) -> None:
        super().__init__()
        mean = vectors.mean(1)
        centred = vectors - mean[:, None]
        scale = centred.square().mean((1, 2)).sqrt()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1.0))

    def apply_to(self, vectors: Tensor) -> Float[Tensor, "layer token d_model"]:
        """Vectors with mean 0 and entries of size 1."""
        return (vectors - self.mean[:, None]) / self.scale[:, None, None]


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
        distance = sizes + sizes[row] - 2 * vectors @ vectors[row[0]]
        nearest = torch.minimum(nearest, distance.clamp(min=0))
    return torch.cat(chosen)


class TrainedDictionary(nn.Module):
    """Parameters of one transcoder per layer, or of one cross-layer transcoder."""

    def __init__(
        self,
        settings: TrainSettings,
        inputs: Float[Tensor, "layer token d_model"],
        outputs: Float[Tensor, "layer token d_model"],
    ) -> None:
        """Initialise from these inputs and outputs."""
        super().__init__()
        n_layers, _, d_model = inputs.shape
        generator = torch.Generator().manual_seed(settings.seed)
        d_dict = settings.d_dict
        self.inputs, self.outputs = Scales(inputs), Scales(outputs)
        encoder, directions = from_examples(
            self.inputs.apply_to(inputs)[:, :EXAMPLE_TOKENS],
            self.outputs.apply_to(outputs)[:, :EXAMPLE_TOKENS],
            d_dict,
            generator,
        )
        self.encoder = nn.Parameter(encoder)
        self.encoder_bias = nn.Parameter(torch.zeros(n_layers, d_dict))
        self.log_threshold = nn.Parameter(torch.zeros(n_layers, d_dict))
        crossing = settings.kind == Kind.CROSS_LAYER
        self.decoders = nn.ParameterList()  # per written layer (source layer, d_dict, d_model)
        for layer in range(n_layers):
            sources = range(layer + 1) if crossing else [layer]
            own = [directions[source] * (source == layer) for source in sources]
            self.decoders.append(torch.stack(own))
        self.decoder_bias = nn.Parameter(torch.zeros(n_layers, d_model))
        self.skip = (
            nn.Parameter(torch.zeros(n_layers, d_model, d_model))
            if settings.kind == Kind.SKIP
            else None
        )
        self.to(inputs)
        self._start_at(settings.l0 / d_dict, inputs[:, :CALIBRATION_TOKENS])

    @torch.no_grad()
    def _start_at(self, share: float, inputs: Float[Tensor, "layer token d_model"]) -> None:
        """Set thresholds that every feature exceeds on this share of tokens."""
        pre = self.pre_activations(self.inputs.apply_to(inputs))
        count = max(1, round((1 - share) * pre.shape[1]))
        self.log_threshold.copy_(pre.kthvalue(count, dim=1).values.clamp(min=1e-3).log())

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
