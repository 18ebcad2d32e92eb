"""Sparse autoencoders: features of a vector inside the model, which stand in for nothing.

    activation = nonlinearity(encoder · (scale · x - subtracted) + encoder_bias)

They say what fires where; a graph needs transcoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.nonlinearities import Nonlinearity
from circuits.features.transcoder import pre_activations
from circuits.features.transcoder_set import DictionaryMismatch
from circuits.model.architectures import part
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from graphs.core.provenance import DictionaryIdentity


class Site(StrEnum):
    """What an autoencoder rebuilds."""

    RESIDUAL = "residual"  # the stream behind a block
    MLP = "mlp"  # what the MLP adds to the stream
    MLP_OUTPUT = "mlp-output"  # what the MLP module returns, before a post-norm
    ATTENTION = "attention"  # what attention adds to the stream
    HEADS = "heads"  # outputs of all heads side by side, before W_O
    TRANSCODER = "transcoder"  # nothing: it reads what the MLP reads and writes what that adds


@dataclass(frozen=True)
class Autoencoder:
    """The dictionary of one layer; matrices may lie in files."""

    layer: int
    site: Site
    encoder: Float[Tensor, "d_dict d_in"]
    encoder_bias: Float[Tensor, " d_dict"]
    nonlinearity: Nonlinearity
    scale: float = 1.0
    subtracted: Float[Tensor, " d_in"] | None = None

    def activations(self, vectors: Float[Tensor, "pos d_in"]) -> Float[Tensor, "pos d_dict"]:
        """Features of these vectors.  Raises DictionaryMismatch for another width."""
        width = self.encoder.shape[1]
        if vectors.shape[1] != width:
            raise DictionaryMismatch(
                f"The autoencoder of layer {self.layer} reads {width} dimensions, the model has "
                f"{vectors.shape[1]} there: choose one that was trained on this model."
            )
        vectors = vectors * self.scale
        if self.subtracted is not None:
            vectors = vectors - self.subtracted.to(vectors)
        return self.nonlinearity(pre_activations(vectors, self.encoder, self.encoder_bias))


@dataclass(frozen=True)
class AutoencoderSet:
    """Autoencoders of some layers."""

    autoencoders: tuple[Autoencoder, ...]
    identity: DictionaryIdentity


def fired(
    frozen: FrozenModel, prompt: Prompt, chosen: AutoencoderSet
) -> Iterator[tuple[Autoencoder, Float[Tensor, "pos d_dict"]]]:
    """Each autoencoder and its activations on a prompt, zero where it is context only.

    Raises DictionaryMismatch for layers or widths that the model has not, PromptError for tokens
    that it does not embed.
    """
    seen: dict[tuple[int, Site], Tensor] = {}
    ids = torch.tensor([prompt.ids], device=frozen.device)
    frozen.require_embedded(ids)
    with torch.inference_mode(), _watched(frozen, chosen, seen):
        frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        for autoencoder in chosen.autoencoders:
            activations = autoencoder.activations(seen[autoencoder.layer, autoencoder.site])
            activations[: prompt.context_only] = 0
            yield autoencoder, activations


@contextmanager
def _watched(
    frozen: FrozenModel, chosen: AutoencoderSet, seen: dict[tuple[int, Site], Tensor]
) -> Iterator[None]:
    """Store what the model computes at the autoencoders' sites."""
    with ExitStack() as stack:
        for autoencoder in chosen.autoencoders:
            if autoencoder.layer >= frozen.n_layers:
                raise DictionaryMismatch(
                    f"{chosen.identity.name!r} has an autoencoder of layer {autoencoder.layer}, "
                    f"the model has {frozen.n_layers} layers: choose one of this model."
                )
            key = autoencoder.layer, autoencoder.site
            module = _module(frozen, *key)
            if autoencoder.site == Site.HEADS:
                handle = module.register_forward_pre_hook(_keep_input(seen, key))
            else:
                handle = module.register_forward_hook(_keep_output(seen, key))
            stack.callback(handle.remove)
        yield


def _module(frozen: FrozenModel, layer: int, site: Site) -> nn.Module:
    layout, block = frozen.layout, frozen.modules[layer]
    attention = part(block, layout.attention)
    if site == Site.RESIDUAL:
        return block
    if site == Site.HEADS:
        return part(attention, layout.output)
    if site == Site.ATTENTION:
        return part(block, layout.post_attention_norm) if layout.post_attention_norm else attention
    return part(block, layout.mlp_contribution if site == Site.MLP else layout.mlp)


def _keep_input(seen: dict[tuple[int, Site], Tensor], key: tuple[int, Site]):
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        del module
        seen[key] = args[0][0]

    return hook


def _keep_output(seen: dict[tuple[int, Site], Tensor], key: tuple[int, Site]):
    def hook(
        module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]
    ) -> None:
        del module, args
        seen[key] = (output[0] if isinstance(output, tuple) else output)[0]

    return hook
