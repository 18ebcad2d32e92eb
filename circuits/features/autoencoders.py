"""Sparse autoencoders: features of a vector inside the model, which replace no part of it.

    activation = nonlinearity(encoder · (scale · x - subtracted) + encoder_bias)

They show which features are active; attribution graphs need transcoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.points import Site
from circuits.features.transcoder import Nonlinearity, pre_activations
from circuits.features.transcoder_set import DictionaryMismatch
from circuits.model.architectures import part
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.recording.record import Hooks
from graphs.core.brief import Brief
from graphs.core.provenance import DictionaryIdentity


@dataclass(frozen=True)
class Autoencoder:
    """The dictionary of one layer; matrices may be mapped from files."""

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


@dataclass(frozen=True, repr=False)
class AutoencoderSet(Brief):
    """Autoencoders of some layers."""

    autoencoders: tuple[Autoencoder, ...]
    identity: DictionaryIdentity


def autoencoder_activations(
    frozen: FrozenModel, prompt: Prompt, chosen: AutoencoderSet
) -> Iterator[tuple[Autoencoder, Float[Tensor, "pos d_dict"]]]:
    """Each autoencoder and its activations on a prompt, 0 at prefix positions.

    Raises DictionaryMismatch for layers or widths that the model does not have, PromptError for
    tokens that it does not embed.
    """
    seen: dict[tuple[int, Site], Tensor] = {}
    ids = torch.tensor([prompt.ids], device=frozen.device)
    frozen.require_embedded(ids)
    with torch.inference_mode(), _site_hooks(frozen, chosen, seen):
        frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        for autoencoder in chosen.autoencoders:
            activations = autoencoder.activations(seen[autoencoder.layer, autoencoder.site])
            activations[: prompt.n_prefix] = 0
            yield autoencoder, activations


@contextmanager
def _site_hooks(
    frozen: FrozenModel, chosen: AutoencoderSet, seen: dict[tuple[int, Site], Tensor]
) -> Iterator[None]:
    """Within the block, store in `seen` what the model computes at the autoencoders' sites."""
    with Hooks() as hooks:
        for autoencoder in chosen.autoencoders:
            if autoencoder.layer >= frozen.n_layers:
                raise DictionaryMismatch(
                    f"{chosen.identity.name!r} has an autoencoder of layer {autoencoder.layer}, "
                    f"the model has {frozen.n_layers} layers: choose one of this model."
                )
            key = autoencoder.layer, autoencoder.site
            module = _module(frozen, *key)
            if autoencoder.site == Site.HEADS:
                hooks.before(module, lambda given, key=key: seen.update({key: given[0]}))
            else:
                added = autoencoder.site in (Site.MLP, Site.ATTENTION)
                factor = frozen.residual_multiplier if added else 1.0
                hooks.after(
                    module,
                    lambda _, output, key=key: seen.update({key: output[0]}),
                    factor=factor,
                )
        yield


def _module(frozen: FrozenModel, layer: int, site: Site) -> nn.Module:
    modules = frozen.blocks[layer].modules
    if site == Site.RESIDUAL:
        return frozen.modules[layer]
    if site == Site.HEADS:
        return part(modules.attention, frozen.layout.output)
    if site == Site.ATTENTION:
        return modules.post_attention_norm or modules.attention
    return modules.mlp_contribution if site == Site.MLP else modules.mlp
