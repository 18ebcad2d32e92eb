"""Gemma Scope 1 and 2.

Gemma Scope 1 keeps `layer_{l}/…/params.npz` with W_enc (d_model, d_dict), W_dec, b_enc, b_dec and
threshold; its encoders read before the norm's gain, which the paper folds into the MLP.

Gemma Scope 2 keeps `layer_{l}_…/params.safetensors` beside a config.json, or for a cross-layer set
`params_layer_{l}.safetensors`, with

    w_enc (d_model, d_dict)   w_dec (d_dict, d_model), or (d_dict, L, d_model) by written layer
    b_enc, b_dec, threshold   affine_skip_connection (in, out), optional

The written axis of a cross-layer decoder counts all layers of the model; only those from the
feature's own on mean anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import OUTPUT_READ, OUTPUT_WRITTEN, layer_of, point
from circuits.features.files.locations import Place
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    alike,
    beside,
    by_names,
    mapped,
    needed,
    transcoder,
)
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.features.transcoder import Transcoder

CROSS_LAYER = re.compile(r"params_layer_(\d+)\.safetensors")
CROSSCODER = "crosscoder"  # a type in config.json
SINGLE = re.compile(r"(?:(.*)/)?params\.(npz|safetensors)")
NAMES = ("w_enc", "w_dec", "b_enc", "b_dec")
NAMES_1 = ("W_enc", "W_dec", "b_enc", "b_dec")


def recognised(place: Place) -> bool:
    """Whether there are files of its names."""
    return any(CROSS_LAYER.fullmatch(file) or SINGLE.fullmatch(file) for file in place.files)


def read(place: Place) -> StoredSet:
    """The set, which may have some layers only.  Raises WeightsFormatError if it cannot be."""
    crossing = sorted(
        (int(match[1]), file)
        for match, file in ((CROSS_LAYER.fullmatch(file), file) for file in place.files)
        if match
    )
    if crossing:
        return _read_cross_layer(place, crossing)
    layers: dict[int, Transcoder] = {}
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]] = set()
    for file in place.files:
        match = SINGLE.fullmatch(file)
        if match is None:
            continue
        path, config = place.path(file), _config(place, file)
        layer = layer_of(match[1]) if match[1] else layer_of(str(path.parent))
        if layer is None:
            layer = layer_of(str(config.get("hf_hook_point_out", "")))
        if layer is None:
            raise WeightsFormatError(f"{file} in {place.name} does not tell its layer.")
        if layer in layers:
            raise WeightsFormatError(
                f"{place.name} holds several dictionaries of layer {layer}: name one width and "
                "L0, as in width_16k/average_l0_60."
            )
        points.add(_points(path, config))
        layers[layer] = single(path)
    return StoredSet(layers, *alike(points, place.name), cross_layer=False, partial=True)


def _read_cross_layer(place: Place, files: list[tuple[int, str]]) -> StoredSet:
    config = _config(place, files[0][1])
    if config.get("type") == CROSSCODER:
        raise WeightsFormatError(
            f"{place.name} is a crosscoder: it rebuilds residual streams, not MLPs, so it cannot "
            "stand in for them; choose a transcoder or clt, or list what fires with `headwater "
            "features`."
        )
    if [layer for layer, _ in files] != list(range(len(files))):
        raise WeightsFormatError(
            f"{place.name} lacks layers: it has {', '.join(str(layer) for layer, _ in files)}."
        )
    layers = {layer: cross_layer(place.path(file), layer, len(files)) for layer, file in files}
    return StoredSet(layers, ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION, cross_layer=True)


def cross_layer(path: Path, layer: int, n_layers: int) -> Transcoder:
    """One layer of a Gemma Scope 2 cross-layer set."""
    tensors = mapped(path)
    needed(tensors, (*NAMES, "threshold"), path)
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
    needed(tensors, (*names, "threshold"), path)
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
        # Gemma Scope 1's paper, and measured: only before the gain is the L0 the declared one.
        return ReadPoint.NORMALISED, WritePoint.CONTRIBUTION
    if config.get("type") not in (None, "transcoder"):
        raise WeightsFormatError(
            f"{path} is of type {config['type']!r}, which does not stand in for an MLP: choose a "
            "transcoder or clt; `headwater features` lists what others say."
        )
    if not config:
        missing = Unknown(
            f"{path} has no config.json beside it, which says where it reads and writes: get it "
            "from where the weights are from, or give --read-at and --write-at."
        )
        return missing, missing
    return (
        point(path, "hf_hook_point_in", config.get("hf_hook_point_in"), OUTPUT_READ),
        point(path, "hf_hook_point_out", config.get("hf_hook_point_out"), OUTPUT_WRITTEN),
    )


def _config(place: Place, file: str) -> dict[str, Any]:
    """config.json beside a file; empty if there is none."""
    name = beside(file, "config.json")
    return read_json(place.path(name)) if name in place.files else {}
