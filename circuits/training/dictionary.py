"""Dictionaries in training: in normalised units.

    pre_l    = encoder_l · (x_l - mean_l) / scale_l + bias_l
    output_m = (Σ_{l ≤ m} activation_l · decoder_{l→m} + skip_m · input_m + bias_m) · scale'_m
               + mean'_m

`folded` gives plain transcoders with means and scales folded in.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.transcoder import JumpReLU, TopK, Transcoder
from circuits.machine import is_accelerator
from circuits.training.code import Code, written_by_all
from circuits.training.processes import ALONE, Processes
from circuits.training.settings import Kind, Sparsity, TrainSettings

# Along which axis of its parameters features lie; other parameters belong to no feature.
FEATURE_AXIS = {"encoder_bias": 1, "log_threshold": 1, "encoders": 0, "decoders": 0}


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
        for layer, own in enumerate(vectors):  # a copy of all would be as large as half a pool
            spread = (own - scales.mean[layer]).square().mean().sqrt()
            scales.scale[layer] = torch.where(spread > 0, spread, 1.0)
        return scales

    def at(self, layer: int) -> tuple[Float[Tensor, " d_model"], Float[Tensor, ""]]:
        """Mean and scale of one layer."""
        return self.mean[layer], self.scale[layer]

    def apply_at(
        self, layer: int, vectors: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_model"]:
        """One layer's vectors with mean 0 and entries of size 1."""
        mean, scale = self.at(layer)
        return (vectors - mean) / scale

    def apply_to(self, vectors: Tensor) -> Float[Tensor, "layer token d_model"]:
        """The same for all layers."""
        return (vectors - self.mean[:, None]) / self.scale[:, None, None]


class TrainedDictionary(nn.Module):
    """Parameters of one transcoder per layer, or of one cross-layer transcoder.

    Where features are divided among processes, `feat` are those of this process alone.
    """

    def __init__(
        self, settings: TrainSettings, n_layers: int, d_model: int, processes: Processes = ALONE
    ) -> None:
        """All parameters 0; `start.started` gives them values, or a checkpoint."""
        super().__init__()
        self.settings, self.processes = settings, processes
        self.width = d_dict = processes.features.part(settings.d_dict, "features")
        self.inputs, self.outputs = Scales(n_layers, d_model), Scales(n_layers, d_model)
        self.encoder_bias = nn.Parameter(torch.zeros(n_layers, d_dict))
        self.log_threshold = nn.Parameter(torch.zeros(n_layers, d_dict))
        self.decoder_bias = nn.Parameter(torch.zeros(n_layers, d_model))
        skips = settings.kind == Kind.SKIP
        self.skip = nn.Parameter(torch.zeros(n_layers, d_model, d_model)) if skips else None
        self.encoders = nn.ParameterList(torch.zeros(d_dict, d_model) for _ in range(n_layers))
        self.decoders = nn.ParameterList(  # (feat, written layer, d_model), its own layer first
            torch.zeros(d_dict, n_written, d_model)
            for n_written in n_written_by(settings.kind, n_layers)
        )

    @torch.no_grad()
    def pre_activations(
        self, layer: int, inputs: Float[Tensor, "token d_model"], *, exact: bool = False
    ) -> Float[Tensor, "token feat"]:
        """Of one layer, from normalised inputs; if not exact, in bfloat16 by the settings."""
        tensors = self.encoder_bias[layer], inputs, self.encoders[layer].T
        if not exact and self.settings.rounds(accelerator=is_accelerator(inputs.device)):
            tensors = tuple(tensor.bfloat16() for tensor in tensors)
        return torch.addmm(*tensors)

    def values(
        self, layer: int, inputs: Float[Tensor, "token d_model"], code: Code
    ) -> Float[Tensor, " entry"]:
        """Pre-activations of these entries alone, in full precision and with gradients."""
        return code.read(self.encoders[layer], inputs, self.encoder_bias[layer])

    def written(
        self, codes: tuple[Code, ...], values: list[Tensor]
    ) -> Float[Tensor, "layer token d_model"]:
        """What the features of all layers add to the normalised outputs."""
        return self.processes.features.sum(written_by_all(codes, values, list(self.decoders)))

    def linear(
        self, inputs: Float[Tensor, "layer token d_model"]
    ) -> Float[Tensor, "layer token d_model"]:
        """Biases and skips."""
        bias = self.decoder_bias[:, None]
        if self.skip is None:
            return bias.expand_as(inputs)
        return torch.baddbmm(bias, inputs, self.skip.mT)

    def decoder_norms(self) -> Float[Tensor, "layer feat"]:
        """Norm of what a feature writes, over all layers that it writes to."""
        return torch.stack([decoder.flatten(1).norm(dim=1) for decoder in self.decoders])

    @torch.no_grad()
    def gradient_norm(self) -> Float[Tensor, ""]:
        """The norm of the gradient of all processes.

        Afterwards each process has the whole gradient of the parameters that it has.
        """
        tokens, features = self.processes.tokens, self.processes.features
        named = [(name, one.grad) for name, one in self.named_parameters() if one.grad is not None]
        for _, gradient in named:
            tokens.add_up(gradient)
        if features.size == 1:
            return nn.utils.get_total_norm([gradient for _, gradient in named])
        apart = [gradient for name, gradient in named if feature_axis(name) is not None]
        alike = [gradient for name, gradient in named if feature_axis(name) is None]
        for gradient in alike:
            features.take_from_first(gradient)
        squares = [nn.utils.get_total_norm(some).square() for some in (apart, alike)]
        return (features.sum(squares[0]) + squares[1]).sqrt()

    @torch.no_grad()
    def on_first(self) -> TrainedDictionary | None:
        """The dictionary with the features of all, on the first process, there in main memory."""
        features = self.processes.features
        if features.size == 1:
            return self
        found = dict[str, Tensor]()
        for name, values in self.state_dict().items():
            whole = features.on_first(values, feature_axis(name))
            if whole is not None:
                found[name] = whole.cpu()
        if features.rank > 0:
            return None
        n_layers, d_model = self.decoder_bias.shape
        dictionary = TrainedDictionary(self.settings, n_layers, d_model)
        dictionary.load_state_dict(found, assign=True)
        return dictionary

    @torch.no_grad()
    def normalise_decoders(self) -> None:
        """Scale every feature's decoder to norm 1, and its encoder and threshold to compensate."""
        norms = self.decoder_norms().clamp(min=1e-12)
        for layer, norm in enumerate(norms):
            self.decoders[layer] /= norm[:, None, None]
            self.encoders[layer] *= norm[:, None]
        self.encoder_bias *= norms
        self.log_threshold += norms.log()

    @torch.no_grad()
    def folded(self, threshold: Float[Tensor, "layer feat"]) -> tuple[Transcoder, ...]:
        """Plain transcoders of the model's unnormalised vectors; TopK without these thresholds."""
        settings, read, wrote = self.settings, self.inputs, self.outputs
        layers: list[Transcoder] = []
        for layer, decoder in enumerate(self.decoders):
            encoder = self.encoders[layer] / read.scale[layer]
            to = slice(layer, layer + decoder.shape[1])
            decoders = decoder * wrote.scale[to, None]
            bias = self.decoder_bias[layer] * wrote.scale[layer] + wrote.mean[layer]
            skip = None
            if self.skip is not None:
                skip = self.skip[layer] * (wrote.scale[layer] / read.scale[layer])
                bias = bias - skip @ read.mean[layer]
            top_k = settings.sparsity == Sparsity.TOP_K
            layers.append(
                Transcoder(
                    encoder=encoder,
                    encoder_bias=self.encoder_bias[layer] - encoder @ read.mean[layer],
                    decoders=decoders.unbind(1),
                    decoder_bias=bias,
                    nonlinearity=TopK(settings.k) if top_k else JumpReLU(threshold[layer].clone()),
                    skip=skip,
                )
            )
        return tuple(layers)


def feature_axis(name: str) -> int | None:
    """The axis of a parameter along which features lie, by its name."""
    return FEATURE_AXIS.get(name.partition(".")[0])


def n_written_by(kind: Kind, n_layers: int) -> list[int]:
    """Number of layers that each layer's features write to."""
    return [n_layers - layer if kind == Kind.CROSS_LAYER else 1 for layer in range(n_layers)]
