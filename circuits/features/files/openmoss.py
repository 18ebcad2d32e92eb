"""OpenMOSS (llamascopium, lm-saes): config.json and sae_weights.safetensors.

A transcoder has W_E (d, d_dict), b_E, W_D (d_dict, d), b_D; a cross-layer set W_E (L, d, d_dict),
b_E (L, d_dict) and, by written layer m, W_D.{m} (m + 1, d_dict, d), b_D.{m}.  Thresholds are
stored as logarithms.  With `sparsity_include_decoder_norm` features are ranked by their value
times the norm of their decoder; with `dataset-wise` normalisation inputs and outputs are scaled to
a norm of √d on average.  Older sets (Llama Scope) have encoder.weight (d_dict, d),
decoder.weight (d, d_dict) and one threshold in hyperparams.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import READ_POINTS, WRITE_POINTS, layer_of, point
from circuits.features.files.locations import Location
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    common_points,
    mapped,
    require_tensors,
    transcoder,
)
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import (
    BatchTopK,
    JointTopK,
    JumpReLU,
    Nonlinearity,
    ReLU,
    TopK,
    Transcoder,
)

WEIGHTS, CONFIG = "sae_weights.safetensors", "config.json"
OLD_WEIGHTS, OLD_CONFIG = "checkpoints/final.safetensors", "hyperparams.json"
THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = "dataset_average_activation_norm"


def recognised(location: Location) -> bool:
    """Whether there are weights with a config.json or hyperparams.json."""
    return bool(pairs(location))


def read(location: Location) -> StoredSet:
    """The set, possibly of some layers only.  Raises WeightsFormatError if it cannot be read."""
    layers: dict[int, Transcoder] = {}
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]] = set()
    crossing, joint = False, None
    for weights, config_name in pairs(location):
        path, config_path = location.path(weights), location.path(config_name)
        config = read_json(config_path)
        if config.get("sae_type", "sae") == "clt":
            crossing = True
            hooks_in, hooks_out = config.get("hook_points_in"), config.get("hook_points_out")
            if not hooks_in or not hooks_out:
                raise WeightsFormatError(f"{config_path} lacks hook_points_in or hook_points_out.")
            layers |= _cross_layer(path, config)
            joint = _joint(config, layers)
            points.add(_points(config_path, hooks_in[0], hooks_out[0]))
            continue
        if config.get("sae_type", "sae") != "sae":
            raise WeightsFormatError(
                f"{config_path} has sae_type {config['sae_type']!r}: expected sae or clt."
            )
        hook_in, hook_out = config.get("hook_point_in"), config.get("hook_point_out")
        if hook_in == hook_out:
            raise WeightsFormatError(
                f"{path} is an autoencoder of {hook_in}, which does not replace an MLP: choose a "
                "transcoder, or list active features with `headwater features`."
            )
        layer = layer_of(str(hook_in))
        if layer is None or layer in layers:
            raise WeightsFormatError(
                f"{config_path} has hook_point_in {hook_in!r}: expected a hook in one block, "
                "different for every dictionary."
            )
        points.add(_points(config_path, hook_in, hook_out))
        layers[layer] = single(path, config)
    return StoredSet(
        layers,
        *common_points(points, location.name),
        cross_layer=crossing,
        partial=not crossing,
        joint=joint,
    )


def pairs(location: Location) -> list[tuple[str, str]]:
    """Weights and config of each folder."""
    found: list[tuple[str, str]] = []
    for weights, config in ((WEIGHTS, CONFIG), (OLD_WEIGHTS, OLD_CONFIG)):
        for file in location.files:
            folder = file.removesuffix(weights)
            at_end = folder != file and (not folder or folder.endswith("/"))
            if at_end and f"{folder}{config}" in location.files:
                found.append((file, f"{folder}{config}"))
    return found


def _points(
    path: Path, hook_in: object, hook_out: object
) -> tuple[ReadPoint | Unknown, WritePoint | Unknown]:
    return (
        point(path, "hook_point_in", hook_in, READ_POINTS),
        point(path, "hook_point_out", hook_out, WRITE_POINTS),
    )


def single(path: Path, config: dict[str, Any]) -> Transcoder:
    """One layer in the current or the old layout."""
    tensors = mapped(path)
    if "encoder.weight" in tensors:
        return _old(path, config, tensors)
    require_tensors(tensors, ("W_E", "b_E", "W_D"), path)
    _refuse_unusual(path, config, tensors)
    decoder = tensors["W_D"]
    d_model = tensors["W_E"].shape[0]
    read, write = (
        _scale(path, config, tensors, str(config[f"hook_point_{side}"]), d_model)
        for side in ("in", "out")
    )
    norm = decoder.float().norm(dim=1) if config.get("sparsity_include_decoder_norm") else None
    bias = tensors.get("b_D", torch.zeros(d_model))
    return transcoder(
        path,
        encoder=tensors["W_E"],
        encoder_bias=tensors["b_E"],
        decoders=(decoder,),
        decoder_bias=bias.float() / write,
        by_input=True,
        nonlinearity=_nonlinearity(path, config, tensors.get(THRESHOLD), norm),
        read_scale=read,
        write_scales=(1 / write,),
    )


def _cross_layer(path: Path, config: dict[str, Any]) -> dict[int, Transcoder]:
    tensors = mapped(path)
    require_tensors(tensors, ("W_E", "b_E", "W_D.0"), path)
    _refuse_unusual(path, config, tensors)
    n_layers, d_model, _ = tensors["W_E"].shape
    require_tensors(tensors, tuple(f"W_D.{m}" for m in range(n_layers)), path)
    hooks_in, hooks_out = config["hook_points_in"], config["hook_points_out"]
    writes = [_scale(path, config, tensors, str(hook), d_model) for hook in hooks_out]
    thresholds = tensors.get(THRESHOLD)
    layers: dict[int, Transcoder] = {}
    for layer in range(n_layers):
        decoders = tuple(tensors[f"W_D.{m}"][layer] for m in range(layer, n_layers))
        norm = _norm(decoders) if config.get("sparsity_include_decoder_norm") else None
        bias = tensors.get(f"b_D.{layer}", torch.zeros(d_model))
        layers[layer] = transcoder(
            path,
            encoder=tensors["W_E"][layer],
            encoder_bias=tensors["b_E"][layer],
            decoders=decoders,
            decoder_bias=bias.float() / writes[layer],
            by_input=True,
            nonlinearity=_nonlinearity(
                path, config, None if thresholds is None else thresholds[layer], norm
            ),
            read_scale=_scale(path, config, tensors, str(hooks_in[layer]), d_model),
            write_scales=tuple(1 / write for write in writes[layer:]),
        )
    return layers


def _norm(decoders: tuple[Tensor, ...]) -> Tensor:
    """Norm of each feature's decoder, over all layers that it writes to."""
    return torch.stack([rows.float().square().sum(1) for rows in decoders]).sum(0).sqrt()


def _joint(config: dict[str, Any], layers: dict[int, Transcoder]) -> JointTopK | None:
    """`layertopk`: the k largest of a token over all layers."""
    if config.get("act_fn") != "layertopk":
        return None
    weighted = config.get("sparsity_include_decoder_norm")
    sizes = (
        _norm(layer.decoders) if weighted else torch.ones(layer.d_dict) for layer in layers.values()
    )
    return JointTopK(int(config["top_k"]), tuple(sizes))


def _old(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Transcoder:
    """Llama Scope: one threshold, in hyperparams.json, for inputs of norm √d."""
    require_tensors(tensors, ("encoder.weight", "encoder.bias", "decoder.weight"), path)
    norms, d_model = config.get(NORM) or {}, tensors["encoder.weight"].shape[1]
    read, write = (
        d_model**0.5 / float(norms[side]) if side in norms else 1.0 for side in ("in", "out")
    )
    least = float(config.get("jump_relu_threshold") or 0.0)
    bias = tensors.get("decoder.bias", torch.zeros(d_model))
    return transcoder(
        path,
        encoder=tensors["encoder.weight"],
        encoder_bias=tensors["encoder.bias"],
        decoders=(tensors["decoder.weight"].T,),
        decoder_bias=bias.float() / write,
        threshold=torch.full((len(tensors["encoder.bias"]),), least),
        read_scale=read,
        write_scales=(1 / write,),
    )


def _refuse_unusual(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    normalised = config.get("norm_activation", "inference")
    if normalised not in ("inference", "dataset-wise", None):
        raise WeightsFormatError(
            f"{path} normalises its inputs {normalised}, which is not linear on a prompt."
        )
    if config.get("use_glu_encoder") or "W_E_glu" in tensors:
        raise WeightsFormatError(f"{path} has a gated encoder, which is not linear on a prompt.")


def _scale(
    path: Path, config: dict[str, Any], tensors: dict[str, Tensor], hook: str, d: int
) -> float:
    """The factor of vectors at a hook before they are encoded or compared."""
    if config.get("norm_activation") != "dataset-wise":
        return 1.0
    require_tensors(tensors, (f"{NORM}.{hook}",), path)
    return d**0.5 / float(tensors[f"{NORM}.{hook}"])


def _nonlinearity(
    path: Path, config: dict[str, Any], threshold: Tensor | None, norm: Tensor | None
) -> Nonlinearity:
    kind, k = str(config.get("act_fn", "relu")), config.get("top_k")
    if kind == "relu":
        return ReLU()
    if kind == "jumprelu":
        if threshold is None:
            raise WeightsFormatError(f"{path} has act_fn jumprelu, but lacks {THRESHOLD}.")
        least = threshold.float().exp()
        return JumpReLU(least if norm is None else least / norm)
    if type(k) is int and k > 0:
        if kind == "topk":
            return TopK(k, weight=norm)
        if kind == "batchtopk":
            return BatchTopK(k, weight=norm)
        if kind == "layertopk" and "W_D.0" in mapped(path):
            return ReLU()  # JointTopK then selects over all layers
    raise WeightsFormatError(
        f"{path} has act_fn {kind!r} with top_k {k!r}: expected relu, jumprelu, topk, batchtopk "
        "or, of a cross-layer set, layertopk."
    )
