"""Sparse autoencoders: features of a vector inside the model, and its reconstruction.

    activation     = nonlinearity(encoder · (scale · x - subtracted) + encoder_bias)
    reconstruction = activation · decoder + decoder_bias

They show which features are active; attribution graphs need transcoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.features.points import Site
from circuits.features.transcoder import Transcoder, pre_activations
from circuits.features.transcoder_set import DictionaryMismatch
from circuits.model.architectures import part
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.recording.record import Hooks
from graphs.core.brief import Brief
from graphs.core.provenance import DictionaryIdentity

OnVectors = Callable[[int, Float[Tensor, "batch pos d_in"]], Tensor | None]


@dataclass(frozen=True)
class Autoencoder:
    """The dictionary of one layer; matrices may be mapped from files.

    Its weights are those of a transcoder that reads and writes at one site.  A crosscoder's also
    write at the sites of the autoencoders that follow it in its set.
    """

    layer: int
    site: Site
    weights: Transcoder
    subtracted: Float[Tensor, " d_in"] | None = None  # from scaled inputs

    def activations(self, vectors: Float[Tensor, "pos d_in"]) -> Float[Tensor, "pos d_dict"]:
        """Features of these vectors.  Raises DictionaryMismatch for another width."""
        weights = self.weights
        width = weights.encoder.shape[1]
        if vectors.shape[1] != width:
            raise DictionaryMismatch(
                f"The autoencoder of layer {self.layer} reads {width} dimensions, the model has "
                f"{vectors.shape[1]} there: choose one that was trained on this model."
            )
        vectors = vectors * weights.read_scale
        if self.subtracted is not None:
            vectors = vectors - self.subtracted.to(vectors)
        return weights.nonlinearity(pre_activations(vectors, weights.encoder, weights.encoder_bias))


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
    seen: dict[int, Tensor] = {}
    ids = torch.tensor([prompt.ids], device=frozen.device)
    frozen.require_embedded(ids)
    with (
        torch.inference_mode(),
        autoencoder_hooks(frozen, chosen, lambda place, found: seen.update({place: found[0]})),
    ):
        frozen.model(input_ids=ids, use_cache=False, logits_to_keep=1)
        for place, autoencoder in enumerate(chosen.autoencoders):
            activations = autoencoder.activations(seen[place])
            activations[: prompt.n_prefix] = 0
            yield autoencoder, activations


@contextmanager
def autoencoder_hooks(
    frozen: FrozenModel, chosen: AutoencoderSet, on_vectors: OnVectors
) -> Iterator[None]:
    """Within the block, runs of the model call `on_vectors` with each autoencoder's place and site.

    The place is that in the set; what `on_vectors` returns, unless None, replaces the vectors.
    Raises DictionaryMismatch for layers that the model does not have.
    """
    with Hooks() as hooks:
        for place, autoencoder in enumerate(chosen.autoencoders):
            layer, site = autoencoder.layer, autoencoder.site
            if layer >= frozen.n_layers:
                raise DictionaryMismatch(
                    f"{chosen.identity.name!r} has an autoencoder of layer {layer}, the model has "
                    f"{frozen.n_layers} layers: choose one of this model."
                )
            module, here = _module(frozen, layer, site), partial(on_vectors, place)
            if site == Site.HEADS:
                hooks.before(module, here)
            else:
                added = site in (Site.MLP, Site.ATTENTION)
                factor = frozen.residual_multiplier if added else 1.0
                hooks.after(module, lambda _, output, here=here: here(output), factor=factor)
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
