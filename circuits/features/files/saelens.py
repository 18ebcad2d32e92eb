"""SAELens: `cfg.json` and `sae_weights.safetensors`, a folder per layer or one alone.

    W_enc (d_in, d_dict)   W_dec (d_dict, d_out)   b_enc   b_dec   threshold, W_skip (out, in)

Version 6 has hook names under `metadata`, version 5 at the top level.
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
from circuits.features.files.locations import Location
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    by_names,
    common_points,
    mapped,
    merged,
    sibling,
)
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import Transcoder

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
TRANSCODERS = (  # architectures; whatever the name, a threshold makes a JumpReLU
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)


def recognised(location: Location) -> bool:
    """Whether there are weights with a cfg.json."""
    return any(file.rpartition("/")[2] == WEIGHTS for file in location.files) and any(
        file.rpartition("/")[2] == CONFIG for file in location.files
    )


def read(location: Location) -> StoredSet:
    """The set, possibly of some layers only.  Raises WeightsFormatError if it cannot be read."""
    layers: dict[int, Transcoder] = {}
    points: set[tuple[ReadPoint | Unknown, WritePoint | Unknown]] = set()
    for file in location.files:
        if file.rpartition("/")[2] != WEIGHTS:
            continue
        path = config_of(location, file)
        config = read_json(path)
        flat = merged(config)
        _refuse_unusual(path, config)
        layer = layer_of(str(flat.get("hook_name")))
        if layer is None:
            raise WeightsFormatError(f"hook_name in {path} does not specify a layer.")
        if layer in layers:
            raise WeightsFormatError(
                f"{location.name} has several dictionaries of layer {layer}: give one of them."
            )
        points.add(_points(path, flat))
        layers[layer] = _layer(location.path(file))
    return StoredSet(layers, *common_points(points, location.name), cross_layer=False, partial=True)


def config_of(location: Location, file: str) -> Path:
    """The config of a weights file.  Raises WeightsFormatError if there is none."""
    name = sibling(file, CONFIG)
    if name not in location.files:
        raise WeightsFormatError(f"{location.name} lacks {name}, the config of {file}.")
    return location.path(name)


def _points(path: Path, config: dict[str, Any]) -> tuple[ReadPoint | Unknown, WritePoint | Unknown]:
    """Copies of Gemma Scope 2 have its own names, which take precedence over their hook names."""
    if "hf_hook_point_in" in config:
        return (
            point(path, "hf_hook_point_in", config["hf_hook_point_in"], OUTPUT_READ),
            point(path, "hf_hook_point_out", config.get("hf_hook_point_out"), OUTPUT_WRITTEN),
        )
    return (
        point(path, "hook_name", config.get("hook_name"), READ_POINTS),
        point(path, "hook_name_out", config.get("hook_name_out"), WRITE_POINTS),
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
            f"{path} has architecture {architecture!r}, which does not replace an MLP: "
            f"expected one of {', '.join(TRANSCODERS)}."
        )
    if config.get("apply_b_dec_to_input"):
        raise WeightsFormatError(
            f"{path} subtracts b_dec from its input, which is not supported: choose another."
        )
    refuse_normalised(path, config)


def refuse_normalised(path: Path, config: dict[str, Any]) -> None:
    """Raises WeightsFormatError for inputs that are scaled by a factor that is not in the files."""
    normalised = config.get("normalize_activations") or "none"
    if normalised != "none":
        raise WeightsFormatError(
            f"{path} normalises its inputs by {normalised!r}, whose factor is not in its files: "
            "fold it into the weights first."
        )
