"""Sparse autoencoders of Gemma Scope 1 and 2, SAELens and sparsify.

Their matrices are those of the families' transcoders; what they rebuild stands in a hook's name,
in Gemma Scope 1 nowhere: there the caller has to say.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from circuits.autoencoders import Autoencoder, Site
from circuits.formats import gemma_scope, saelens, sparsify
from circuits.formats.hooks import layer_of, point, without_block
from circuits.formats.stored import (
    WeightsFormatError,
    beside,
    mapped,
    needed,
    read_json,
    transcoder,
)
from circuits.nonlinearities import TopK
from circuits.places import Place

# TransformerLens hooks and module paths, inside their block.
SITES = {
    "hook_resid_post": Site.RESIDUAL,
    "": Site.RESIDUAL,
    "hook_mlp_out": Site.MLP,
    "post_feedforward_layernorm": Site.MLP,
    "mlp.hook_out": Site.MLP_OUTPUT,
    "mlp": Site.MLP_OUTPUT,
    "hook_attn_out": Site.ATTENTION,
    "attn.hook_z": Site.HEADS,
    "self_attn.o_proj.input": Site.HEADS,
}


def holds_autoencoders(place: Place) -> bool:
    """Whether a config file says so: Gemma Scope 1 has none."""
    for file in place.files:
        if file.rpartition("/")[2] not in ("config.json", "cfg.json"):
            continue
        config = read_json(place.path(file))
        if config.get("type") == "sae":
            return True
        if "hook_name" in {**config, **config.get("metadata", {})}:
            return config.get("architecture") not in saelens.TRANSCODERS
        if "k" in config and "hook_point_in" not in config:
            return config.get("transcode") is False
    return False


def read_autoencoders(place: Place, site: Site | None) -> tuple[Autoencoder, ...]:
    """All autoencoders of a place; `site` where the files do not say, or to override them.

    Raises WeightsFormatError for anything missing or damaged.
    """
    found = [
        _one(place, file, site)
        for file in place.files
        if file.rpartition("/")[2] in (saelens.WEIGHTS, sparsify.WEIGHTS)
        or gemma_scope.SINGLE.fullmatch(file)
    ]
    if not found:
        raise WeightsFormatError(
            f"{place.name} holds no autoencoder in a known format: expected params.npz, "
            "params.safetensors, sae_weights.safetensors or sae.safetensors."
        )
    return tuple(sorted(found, key=lambda autoencoder: autoencoder.layer))


def _one(place: Place, file: str, site: Site | None) -> Autoencoder:
    folder, _, name = file.rpartition("/")
    config: dict[str, Any] = {}
    for told_in in (beside(file, "config.json"), beside(file, "cfg.json")):
        if told_in in place.files:
            config = read_json(place.path(told_in))
    told = {**config, **config.get("metadata", {})}
    hook = told.get("hf_hook_point_in") or told.get("hook_name")
    if name == sparsify.WEIGHTS:
        hook = folder.rpartition("/")[2] or place.name.rpartition("/")[2]
    layer = layer_of(str(hook)) if hook else None
    path = place.path(file)
    layer = layer_of(str(path.parent)) if layer is None else layer
    if layer is None:
        raise WeightsFormatError(f"{file} in {place.name} does not tell its layer.")
    if site is None:
        if hook is None:
            raise WeightsFormatError(
                f"{path} does not say what it rebuilds: give --site ({', '.join(Site)})."
            )
        site = point(path, "hook", _inside(str(hook)), SITES)
    return _built(path, name, mapped(path), config, layer, site)


def _inside(hook: str) -> str:
    """A hook's name inside its block; a block's own output has none.

    >>> _inside("model.layers.17.output"), _inside("layers.3"), _inside("blocks.2.hook_mlp_out")
    ('', '', 'hook_mlp_out')
    """
    inside = without_block(f"{hook.removesuffix('.output')}.")
    return inside.rstrip(".")


def _built(
    path: Any, name: str, tensors: dict[str, Tensor], config: dict[str, Any], layer: int, site: Site
) -> Autoencoder:
    names = (
        ("w_enc", "b_enc", "w_dec", "b_dec")
        if "w_enc" in tensors
        else ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    if name == sparsify.WEIGHTS:
        names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    needed(tensors, names, path)
    encoder, encoder_bias, decoder, decoder_bias = (tensors[key] for key in names)
    built = transcoder(
        path,
        encoder=encoder,
        encoder_bias=encoder_bias,
        decoders=(decoder,),
        decoder_bias=decoder_bias,
        by_input=name != sparsify.WEIGHTS,
        threshold=tensors.get("threshold"),
        nonlinearity=TopK(int(config["k"])) if name == sparsify.WEIGHTS and "k" in config else None,
    )
    subtracts = name == sparsify.WEIGHTS or bool(config.get("apply_b_dec_to_input"))
    return Autoencoder(
        layer=layer,
        site=site,
        encoder=built.encoder,
        encoder_bias=built.encoder_bias,
        nonlinearity=built.nonlinearity,
        subtracted=decoder_bias if subtracts else None,
    )
