"""SAELens: `cfg.json` and `sae_weights.safetensors`, a folder per layer or one alone.

    W_enc (d_in, d_dict)   W_dec (d_dict, d_out)   b_enc   b_dec   threshold, W_skip (out, in)

Version 6 keeps hook names under `metadata`, version 5 beside the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import (
    OUTPUT_READ,
    OUTPUT_WRITTEN,
    READ_POINTS,
    WRITE_POINTS,
    layer_of,
    point,
)
from circuits.features.files.locations import Place
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    alike,
    beside,
    by_names,
    mapped,
    merged,
)
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.features.transcoder import Transcoder

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
TRANSCODERS = (  # architectures; whatever the name, a threshold makes a JumpReLU
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)


def recognised(place: Place) -> bool:
    """Whether weights lie beside a cfg.json."""
    return any(file.rpartition("/")[2] == WEIGHTS for file in place.files) and any(
        file.rpartition("/")[2] == CONFIG for file in place.files
    )


def read(place: Place) -> StoredSet:
    """The set, which may have some layers only.  Raises WeightsFormatError if it cannot be."""
    layers: dict[int, Transcoder] = {}
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]] = set()
    for file in place.files:
        if file.rpartition("/")[2] != WEIGHTS:
            continue
        path = config_of(place, file)
        config = read_json(path)
        told = merged(config)
        _refuse_unusual(path, config)
        layer = layer_of(str(told.get("hook_name")))
        if layer is None:
            raise WeightsFormatError(f"{path} does not tell a layer in hook_name.")
        if layer in layers:
            raise WeightsFormatError(f"{place.name} holds several dictionaries of layer {layer}.")
        points.add(_points(path, told))
        layers[layer] = _layer(place.path(file))
    return StoredSet(layers, *alike(points, place.name), cross_layer=False, partial=True)


def config_of(place: Place, file: str) -> Path:
    """The config beside some weights.  Raises WeightsFormatError if there is none."""
    name = beside(file, CONFIG)
    if name not in place.files:
        raise WeightsFormatError(f"{place.name} has no {name}, which says what {file} is.")
    return place.path(name)


def _points(path: Path, told: dict[str, Any]) -> tuple[ReadPoint | Unknown, WritePoint | Unknown]:
    """Copies of Gemma Scope 2 keep its own names, beside hook names that say something else."""
    if "hf_hook_point_in" in told:
        return (
            point(path, "hf_hook_point_in", told["hf_hook_point_in"], OUTPUT_READ),
            point(path, "hf_hook_point_out", told.get("hf_hook_point_out"), OUTPUT_WRITTEN),
        )
    return (
        point(path, "hook_name", told.get("hook_name"), READ_POINTS),
        point(path, "hook_name_out", told.get("hook_name_out"), WRITE_POINTS),
    )


def _layer(path: Path) -> Transcoder:
    tensors = mapped(path)
    return by_names(
        path,
        tensors,
        ("W_enc", "W_dec", "b_enc", "b_dec"),
        by_input=True,
        threshold=tensors.get("threshold"),
        skip=tensors.get("W_skip"),
    )


def _refuse_unusual(path: Path, config: dict[str, Any]) -> None:
    """Raises WeightsFormatError for what would need other arithmetic than a transcoder's."""
    architecture = str(config.get("architecture", "")).lower()
    if architecture not in TRANSCODERS:
        raise WeightsFormatError(
            f"{path} has architecture {architecture!r}, which does not stand in for an MLP: "
            f"expected one of {', '.join(TRANSCODERS)}."
        )
    if config.get("apply_b_dec_to_input"):
        raise WeightsFormatError(
            f"{path} subtracts b_dec from its input, which no transcoder does: choose another."
        )
    refuse_normalised(path, config)


def refuse_normalised(path: Path, config: dict[str, Any]) -> None:
    """Raises WeightsFormatError for inputs that are scaled by what the files do not hold."""
    normalised = config.get("normalize_activations") or "none"
    if normalised != "none":
        raise WeightsFormatError(
            f"{path} normalises its inputs by {normalised!r}, whose factor is not in its files: "
            "fold it in before it is used."
        )
