"""Gemma Scope 1 and 2.

Gemma Scope 1 has `layer_{l}/…/params.npz` with W_enc (d_model, d_dict), W_dec, b_enc, b_dec and
threshold; its encoders read before the norm's gain, which the paper folds into the MLP.

Gemma Scope 2 has `layer_{l}_…/params.safetensors` with a config.json, or for a cross-layer set
`params_layer_{l}.safetensors`, with

    w_enc (d_model, d_dict)   w_dec (d_dict, d_model), or (d_dict, L, d_model) by written layer
    b_enc, b_dec, threshold   affine_skip_connection (in, out), optional

The written axis of a cross-layer decoder counts all layers of the model; those below the feature's
own are not used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import OUTPUT_READ, OUTPUT_WRITTEN, layer_of, point
from circuits.features.files.locations import Location
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    by_names,
    common_points,
    mapped,
    require_tensors,
    sibling,
    transcoder,
)
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import Transcoder

CROSS_LAYER = re.compile(r"params_layer_(\d+)\.safetensors")
CROSSCODER = "crosscoder"  # a type in config.json
SINGLE = re.compile(r"(?:(.*)/)?params\.(npz|safetensors)")
AVERAGE_L0 = re.compile(r"average_l0_(\d+)")
NAMES = ("w_enc", "w_dec", "b_enc", "b_dec")
NAMES_1 = ("W_enc", "W_dec", "b_enc", "b_dec")


def recognised(location: Location) -> bool:
    """Whether files have Gemma Scope's names."""
    return any(CROSS_LAYER.fullmatch(file) or SINGLE.fullmatch(file) for file in location.files)


def read(location: Location) -> StoredSet:
    """The set, possibly of some layers only.  Raises WeightsFormatError if it cannot be read."""
    crossing = sorted(
        (int(match[1]), file)
        for match, file in ((CROSS_LAYER.fullmatch(file), file) for file in location.files)
        if match
    )
    if crossing:
        return _read_cross_layer(location, crossing)
    layers: dict[int, Transcoder] = {}
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]] = set()
    l0: dict[int, float] = {}
    for file in location.files:
        match = SINGLE.fullmatch(file)
        if match is None:
            continue
        path, config = location.path(file), _config(location, file)
        layer = layer_of(match[1]) if match[1] else layer_of(str(path.parent))
        if layer is None:
            layer = layer_of(str(config.get("hf_hook_point_out", "")))
        if layer is None:
            raise WeightsFormatError(f"{file} in {location.name} does not specify its layer.")
        if layer in layers:
            raise WeightsFormatError(
                f"{location.name} has several dictionaries of layer {layer}: give one width and "
                "L0, as in width_16k/average_l0_60."
            )
        points.add(_points(path, config))
        layers[layer] = single(path)
        if (stated := _stated_l0(path, config)) is not None:
            l0[layer] = stated
    read_and_write = common_points(points, location.name)
    known = l0 if l0.keys() == layers.keys() else None
    return StoredSet(layers, *read_and_write, cross_layer=False, partial=True, l0=known)


def _stated_l0(path: Path, config: dict[str, Any]) -> float | None:
    """Active features per token, by the config or by the name of the folder."""
    stated = config.get("l0")
    if isinstance(stated, int | float) and stated > 0:
        return float(stated)
    named = AVERAGE_L0.fullmatch(path.parent.name)
    return float(named[1]) if named else None


def _read_cross_layer(location: Location, files: list[tuple[int, str]]) -> StoredSet:
    config = _config(location, files[0][1])
    if config.get("type") == CROSSCODER:
        raise WeightsFormatError(
            f"{location.name} is a crosscoder, which reconstructs residual streams and cannot "
            "replace MLPs: choose a transcoder or clt, or list active features with `headwater "
            "features`."
        )
    if [layer for layer, _ in files] != list(range(len(files))):
        raise WeightsFormatError(
            f"{location.name} lacks layers: it has {', '.join(str(layer) for layer, _ in files)}, "
            "expected all from 0 on."
        )
    layers = {layer: cross_layer(location.path(file), layer, len(files)) for layer, file in files}
    return StoredSet(layers, ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION, cross_layer=True)


def cross_layer(path: Path, layer: int, n_layers: int) -> Transcoder:
    """One layer of a Gemma Scope 2 cross-layer set."""
    tensors = mapped(path)
    require_tensors(tensors, (*NAMES, "threshold"), path)
    decoder = tensors["w_dec"]
    if decoder.ndim != 3 or decoder.shape[1] != n_layers:
        raise WeightsFormatError(
            f"w_dec in {path} has shape {tuple(decoder.shape)}, expected (features, {n_layers} "
            "layers, d_model)."
        )
    skip = tensors.get("affine_skip_connection")
    return transcoder(
        path,
        encoder=tensors["w_enc"],
        encoder_bias=tensors["b_enc"],
        decoders=decoder[:, layer:].unbind(1),
        decoder_bias=tensors["b_dec"],
        by_input=True,
        threshold=tensors["threshold"],
        skip=None if skip is None else skip.T,
    )


def single(path: Path) -> Transcoder:
    """One layer of a Gemma Scope 1 or 2 per-layer set."""
    tensors = mapped(path)
    names = NAMES if "w_enc" in tensors else NAMES_1
    require_tensors(tensors, (*names, "threshold"), path)
    skip = tensors.get("affine_skip_connection")
    return by_names(
        path,
        tensors,
        names,
        by_input=True,
        threshold=tensors["threshold"],
        skip=None if skip is None else skip.T,
    )


def _points(path: Path, config: dict[str, Any]) -> tuple[ReadPoint | Unknown, WritePoint | Unknown]:
    if path.suffix == ".npz":
        # By Gemma Scope 1's paper, and measured: L0 is as declared only when read before the gain.
        return ReadPoint.NORMALISED, WritePoint.CONTRIBUTION
    if config.get("type") not in (None, "transcoder"):
        raise WeightsFormatError(
            f"{path} is of type {config['type']!r}, which does not replace an MLP: choose a "
            "transcoder or clt, or list active features with `headwater features`."
        )
    if not config:
        missing = Unknown(
            f"{path} has no config.json beside it, which specifies where it reads and writes: "
            "download it with the weights, or give --read-at and --write-at."
        )
        return missing, missing
    return (
        point(path, "hf_hook_point_in", config.get("hf_hook_point_in"), OUTPUT_READ),
        point(path, "hf_hook_point_out", config.get("hf_hook_point_out"), OUTPUT_WRITTEN),
    )


def _config(location: Location, file: str) -> dict[str, Any]:
    """The config.json of a weights file; empty if there is none."""
    name = sibling(file, "config.json")
    return read_json(location.path(name)) if name in location.files else {}
