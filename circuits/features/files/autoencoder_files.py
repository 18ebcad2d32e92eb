"""Sparse autoencoders of Gemma Scope 1 and 2, SAELens, sparsify and OpenMOSS.

Their matrices are those of the families' transcoders; what they rebuild stands in a hook's name,
in Gemma Scope 1 nowhere: there the caller has to say.  A Gemma Scope 2 crosscoder has a file for
each layer that it reads; features of one rebuild this residual stream and those above.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from circuits.features.autoencoders import Autoencoder, Site
from circuits.features.files import gemma_scope, openmoss, saelens, sparsify
from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import layer_of, point, without_block
from circuits.features.files.locations import CONFIGS, Place
from circuits.features.files.tensors import (
    Unknown,
    WeightsFormatError,
    beside,
    by_names,
    mapped,
    merged,
)
from circuits.features.nonlinearities import Nonlinearity, TopK
from circuits.features.transcoder import Transcoder

# TransformerLens hooks and module paths, inside their block; a block's own output has no name.
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
    """One file of weights, and what stands beside it."""

    place: Place
    file: str  # in the place
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.file.rpartition("/")[2]

    @property
    def path(self) -> Path:
        return self.place.path(self.file)

    @property
    def hook(self) -> str | None:
        """The vector that it reads, if its files say so."""
        if self.name == sparsify.WEIGHTS:
            folder = self.file.rpartition("/")[0]
            return folder.rpartition("/")[2] or self.place.name.rpartition("/")[2]
        if self.depth is not None:
            return f"layers.{_layers_read(self)[self.depth]}"
        told = merged(self.config)
        found = told.get("hf_hook_point_in") or told.get("hook_name") or told.get("hook_point_in")
        return None if found is None else str(found)

    @property
    def depth(self) -> int | None:
        """The place of this file's layer among those that a crosscoder reads."""
        match = gemma_scope.CROSS_LAYER.fullmatch(self.file)
        return int(match[1]) if match else None


def holds_autoencoders(place: Place) -> bool:
    """Whether the files say so.

    Raises WeightsFormatError where nothing tells them from transcoders: Gemma Scope 1.
    """
    for stored in _found(place):
        told = merged(stored.config)
        if stored.file.endswith(".npz"):
            raise WeightsFormatError(
                f"{stored.path} does not say what it is: give --site ({', '.join(Site)})."
            )
        if stored.name == sparsify.WEIGHTS:
            return not sparsify.says_transcoder(stored.config)
        if told.get("type") == gemma_scope.CROSSCODER:
            return True
        if told.get("type") == "sae" or "hook_point_in" in told:
            return told.get("type") == "sae" or (
                told["hook_point_in"] == told.get("hook_point_out", told["hook_point_in"])
            )
        if "hook_name" in told:
            return told.get("architecture") not in saelens.TRANSCODERS
    return False


def read_autoencoders(place: Place, site: Site | None) -> tuple[Autoencoder, ...]:
    """All autoencoders of a place; `site` where the files do not say, or to override them.

    Raises WeightsFormatError for anything missing or damaged.
    """
    found = [_one(stored, site) for stored in _found(place)]
    if not found:
        raise WeightsFormatError(
            f"{place.name} holds no autoencoder in a known format: expected params.npz, "
            "params.safetensors, sae_weights.safetensors or sae.safetensors."
        )
    return tuple(sorted(found, key=lambda autoencoder: autoencoder.layer))


def _found(place: Place) -> list[_Stored]:
    names = (saelens.WEIGHTS, sparsify.WEIGHTS)
    pairs = dict(openmoss.pairs(place))
    found: list[_Stored] = []
    for file in place.files:
        crossing = gemma_scope.CROSS_LAYER.fullmatch(file)
        known = file.rpartition("/")[2] in names or gemma_scope.SINGLE.fullmatch(file)
        if not known and not crossing and file not in pairs:
            continue
        config: dict[str, Any] = {}
        for told_in in (*(beside(file, name) for name in CONFIGS), pairs.get(file)):
            if told_in in place.files:
                config = read_json(place.path(told_in))
        if not crossing or config.get("type") == gemma_scope.CROSSCODER:
            found.append(_Stored(place, file, config))
    return found


def _one(stored: _Stored, site: Site | None) -> Autoencoder:
    path, hook = stored.path, stored.hook
    layer = layer_of(hook) if hook else None
    layer = layer_of(str(path.parent)) if layer is None else layer
    if layer is None:
        raise WeightsFormatError(f"{stored.file} in {stored.place.name} does not tell its layer.")
    inside = "" if hook is None else _inside(hook)
    if hook is None and site is None:
        raise WeightsFormatError(
            f"{path} does not say what it rebuilds: give --site ({', '.join(Site)})."
        )
    named = point(path, "hook", inside, SITES)
    if site is None and isinstance(named, Unknown):
        raise WeightsFormatError(
            f"{path} reads {hook!r}: expected one of {', '.join(filter(None, SITES))} or a "
            f"block's output, or give --site ({', '.join(Site)})."
        )
    if inside == ENTERING and layer == 0:
        raise WeightsFormatError(f"{path} reads the embedding, which no block writes.")
    built = _built(stored)
    return Autoencoder(
        layer=layer - (inside == ENTERING),
        site=site or named,  # pyright: ignore[reportArgumentType]  # an Unknown was refused
        encoder=built.encoder,
        encoder_bias=built.encoder_bias,
        nonlinearity=built.nonlinearity,
        scale=built.read_scale,
        subtracted=built.decoder_bias if _subtracts(stored) else None,
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


def _subtracts(stored: _Stored) -> bool:
    """Whether the decoder's bias is taken from the input."""
    if stored.name == sparsify.WEIGHTS:
        return True
    return bool(stored.config.get("apply_b_dec_to_input"))


def _built(stored: _Stored) -> Transcoder:
    """The matrices as those of a transcoder."""
    path, tensors, config = stored.path, mapped(stored.path), stored.config
    if "W_E" in tensors or "decoder.weight" in tensors:
        return openmoss.single(path, config)
    if stored.depth is not None:
        return gemma_scope.cross_layer(path, stored.depth, len(_layers_read(stored)))
    if "w_enc" in tensors or path.suffix == ".npz":
        return gemma_scope.single(path)
    if stored.name == sparsify.WEIGHTS:
        file = sparsify.File(path, str(stored.hook), config, tensors)
        names = ("encoder.weight", "W_dec", "encoder.bias", "b_dec")
        chosen, scale = sparsify.nonlinearity(file), sparsify.scale(file, "in_norm")
    else:
        names, scale = ("W_enc", "W_dec", "b_enc", "b_dec"), 1.0
        chosen = _saelens_nonlinearity(path, config, tensors)
    return by_names(
        path,
        tensors,
        names,
        by_input=stored.name != sparsify.WEIGHTS,
        nonlinearity=chosen,
        threshold=tensors.get("threshold"),
        read_scale=scale,
    )


def _saelens_nonlinearity(
    path: Path, config: dict[str, Any], tensors: dict[str, Tensor]
) -> Nonlinearity | None:
    """A TopK where the config says so; None where a threshold, or nothing, decides.

    BatchTopK is stored as the JumpReLU that it is at inference.
    """
    saelens.refuse_normalised(path, config)
    architecture = str(config.get("architecture", "standard"))
    said = str(config.get("activation_fn_str") or config.get("activation_fn") or "relu")
    if architecture in ("standard", "jumprelu", "topk", "batchtopk") and said in ("relu", "topk"):
        if "threshold" in tensors or (architecture != "topk" and said != "topk"):
            return None
        arguments = config.get("activation_fn_kwargs")
        k = config.get("k", arguments.get("k") if isinstance(arguments, dict) else None)
        if type(k) is int and k > 0:
            return TopK(k)
        raise WeightsFormatError(f"{path} keeps the k largest, but k is {k!r} in its cfg.json.")
    raise WeightsFormatError(
        f"{path} has architecture {architecture!r} and activation {said!r}: expected standard, "
        "jumprelu, topk or batchtopk, with relu or topk."
    )
