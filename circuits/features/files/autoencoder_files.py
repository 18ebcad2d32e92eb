"""Sparse autoencoders of Gemma Scope 1 and 2, SAELens, sparsify and OpenMOSS.

They have the matrices of the families' transcoders.  The name of a hook says what they reconstruct;
Gemma Scope 1 has none, so the caller must specify it.  A Gemma Scope 2 crosscoder has a file for
each layer that it reads, whose features reconstruct this residual stream and those above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from circuits.features.autoencoders import Autoencoder
from circuits.features.files import gemma_scope, openmoss, saelens, sparsify
from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import layer_of, point, without_block
from circuits.features.files.locations import CONFIGS, Location
from circuits.features.files.tensors import (
    Unknown,
    WeightsFormatError,
    by_names,
    mapped,
    merged,
    require_tensors,
    sibling,
    transcoder,
)
from circuits.features.points import Site
from circuits.features.transcoder import Nonlinearity, TopK, Transcoder

# TransformerLens hooks and module paths, inside their block; "" is the output of the block itself.
SITES = {
    "hook_resid_post": Site.RESIDUAL,
    "hook_resid_pre": Site.RESIDUAL,  # of the block below
    "": Site.RESIDUAL,
    "hook_mlp_out": Site.MLP,
    "post_feedforward_layernorm": Site.MLP,
    "mlp.hook_out": Site.MLP_OUTPUT,
    "mlp": Site.MLP_OUTPUT,
    "hook_attn_out": Site.ATTENTION,
    "attn.hook_z": Site.HEADS,
    "self_attn.o_proj.input": Site.HEADS,
}
ENTERING = "hook_resid_pre"


@dataclass(frozen=True)
class _Stored:
    """One file of weights, with its config."""

    location: Location
    file: str  # in the location
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.file.rpartition("/")[2]

    @property
    def path(self) -> Path:
        return self.location.path(self.file)

    @property
    def hook(self) -> str | None:
        """The hook of the vector that it reads, if its files specify one."""
        if self.name == sparsify.WEIGHTS:
            folder = self.file.rpartition("/")[0]
            return folder.rpartition("/")[2] or self.location.name.rpartition("/")[2]
        if self.depth is not None:
            return f"layers.{_layers_read(self)[self.depth]}"
        config = merged(self.config)
        names = ("hf_hook_point_in", "hook_name", "hook_point_in")
        found = next((config[name] for name in names if config.get(name)), None)
        return None if found is None else str(found)

    @property
    def depth(self) -> int | None:
        """The place of this file's layer among those that a crosscoder reads."""
        match = gemma_scope.CROSS_LAYER.fullmatch(self.file)
        return int(match[1]) if match else None


def holds_autoencoders(location: Location) -> bool:
    """Whether a location has autoencoders, by their configs.

    Raises WeightsFormatError where they cannot be distinguished from transcoders: Gemma Scope 1.
    """
    for stored in _found(location):
        config = merged(stored.config)
        if stored.file.endswith(".npz"):
            raise WeightsFormatError(
                f"{stored.path} does not specify what it is: give --site ({', '.join(Site)})."
            )
        if stored.name == sparsify.WEIGHTS:
            return not sparsify.is_transcoder_config(stored.config)
        if config.get("type") == gemma_scope.CROSSCODER:
            return True
        if config.get("type") == "sae" or "hook_point_in" in config:
            return config.get("type") == "sae" or (
                config["hook_point_in"] == config.get("hook_point_out", config["hook_point_in"])
            )
        if "hook_name" in config:
            return config.get("architecture") not in saelens.TRANSCODERS
    return False


def read_autoencoders(location: Location, site: Site | None) -> tuple[Autoencoder, ...]:
    """All autoencoders of a location; `site` overrides what the files specify, if anything.

    Raises WeightsFormatError for anything missing or damaged.
    """
    found = [_one(stored, site) for stored in _found(location)]
    if not found:
        raise WeightsFormatError(
            f"{location.name} has no autoencoder in a known format: expected params.npz, "
            "params.safetensors, sae_weights.safetensors or sae.safetensors."
        )
    return tuple(sorted(found, key=lambda autoencoder: autoencoder.layer))


def _found(location: Location) -> list[_Stored]:
    names = (saelens.WEIGHTS, sparsify.WEIGHTS)
    pairs = dict(openmoss.pairs(location))
    found: list[_Stored] = []
    for file in location.files:
        crossing = gemma_scope.CROSS_LAYER.fullmatch(file)
        known = file.rpartition("/")[2] in names or gemma_scope.SINGLE.fullmatch(file)
        if not known and not crossing and file not in pairs:
            continue
        config: dict[str, Any] = {}
        for candidate in (*(sibling(file, name) for name in CONFIGS), pairs.get(file)):
            if candidate in location.files:
                config = read_json(location.path(candidate))
        if not crossing or config.get("type") == gemma_scope.CROSSCODER:
            found.append(_Stored(location, file, config))
    return found


def _one(stored: _Stored, site: Site | None) -> Autoencoder:
    path, hook = stored.path, stored.hook
    layer = layer_of(hook) if hook else None
    layer = layer_of(str(path.parent)) if layer is None else layer
    if layer is None:
        raise WeightsFormatError(
            f"{stored.file} in {stored.location.name} does not specify its layer."
        )
    inside = "" if hook is None else _inside(hook)
    if hook is None and site is None:
        raise WeightsFormatError(
            f"{path} does not specify what it reconstructs: give --site ({', '.join(Site)})."
        )
    named = point(path, "hook", inside, SITES)
    if site is None and isinstance(named, Unknown):
        raise WeightsFormatError(
            f"{path} reads {hook!r}: expected one of {', '.join(filter(None, SITES))} or a "
            f"block's output, or give --site ({', '.join(Site)})."
        )
    if inside == ENTERING and layer == 0:
        raise WeightsFormatError(f"{path} reads the embedding, which no block writes.")
    weights = _as_transcoder(stored)
    return Autoencoder(
        layer=layer - (inside == ENTERING),
        site=site or named,  # pyright: ignore[reportArgumentType]  # an Unknown was refused
        weights=weights,
        subtracted=_subtracted(stored, weights),
    )


def _layers_read(stored: _Stored) -> list[int]:
    """All layers that a crosscoder reads, as in `model.layers.{5,9,12,15}.output`."""
    hook = stored.config.get("hf_hook_point_in")
    match = re.fullmatch(r".*\.layers\.\{(\d+(?:,\d+)*)\}\.output", str(hook))
    layers = [int(layer) for layer in match[1].split(",")] if match else []
    if stored.depth is None or stored.depth >= len(layers):
        raise WeightsFormatError(
            f"The config of {stored.path} has hf_hook_point_in {hook!r}: expected the layers that "
            "the crosscoder reads, as in model.layers.{5,9,12,15}.output."
        )
    return layers


def _inside(hook: str) -> str:
    """A hook's name inside its block.

    >>> _inside("model.layers.17.output"), _inside("layers.3"), _inside("blocks.2.hook_mlp_out")
    ('', '', 'hook_mlp_out')
    """
    inside = without_block(f"{hook.removesuffix('.output')}.")
    return inside.rstrip(".")


def _subtracted(stored: _Stored, weights: Transcoder) -> Tensor | None:
    """The decoder's bias if it is subtracted from the scaled input; sparsify scales the output."""
    if stored.name == sparsify.WEIGHTS:
        return mapped(stored.path)["b_dec"]
    return weights.decoder_bias if stored.config.get("apply_b_dec_to_input") else None


def _as_transcoder(stored: _Stored) -> Transcoder:
    """The autoencoder's matrices as a transcoder."""
    path, tensors, config = stored.path, mapped(stored.path), stored.config
    if "W_E" in tensors or "decoder.weight" in tensors:
        return openmoss.single(path, config)
    if stored.depth is not None:
        return gemma_scope.cross_layer(path, stored.depth, len(_layers_read(stored)))
    if "w_enc" in tensors or path.suffix == ".npz":
        return gemma_scope.single(path)
    if stored.name == sparsify.WEIGHTS:
        return _of_sparsify(sparsify.File(path, str(stored.hook), config, tensors))
    return by_names(
        path,
        tensors,
        ("W_enc", "W_dec", "b_enc", "b_dec"),
        by_input=True,
        nonlinearity=_saelens_nonlinearity(path, config, tensors),
        threshold=tensors.get("threshold"),
    )


def _of_sparsify(file: sparsify.File) -> Transcoder:
    tensors = file.tensors
    require_tensors(tensors, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"), file.path)
    read, written = (sparsify.scale(file, f"{side}_norm") for side in ("in", "out"))
    return transcoder(
        file.path,
        encoder=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoders=(tensors["W_dec"],),
        decoder_bias=tensors["b_dec"].float() * written,
        nonlinearity=sparsify.nonlinearity(file),
        read_scale=read,
        write_scales=None if written == 1 else (written,),
    )


def _saelens_nonlinearity(
    path: Path, config: dict[str, Any], tensors: dict[str, Tensor]
) -> Nonlinearity | None:
    """A TopK if the config specifies one; None for a JumpReLU with a threshold, or a ReLU.

    BatchTopK is stored as the JumpReLU that it is at inference.
    """
    saelens.refuse_normalised(path, config)
    architecture = str(config.get("architecture", "standard"))
    kind = str(config.get("activation_fn_str") or config.get("activation_fn") or "relu")
    if architecture in ("standard", "jumprelu", "topk", "batchtopk") and kind in ("relu", "topk"):
        if "threshold" in tensors or (architecture != "topk" and kind != "topk"):
            return None
        arguments = config.get("activation_fn_kwargs")
        k = config.get("k", arguments.get("k") if isinstance(arguments, dict) else None)
        if type(k) is int and k > 0:
            return TopK(k)
        raise WeightsFormatError(
            f"{path} keeps the k largest features, but k is {k!r} in its cfg.json."
        )
    raise WeightsFormatError(
        f"{path} has architecture {architecture!r} and activation {kind!r}: expected standard, "
        "jumprelu, topk or batchtopk, with relu or topk."
    )
