"""SAELens: `cfg.json` and `sae_weights.safetensors`, a folder per layer or one alone.

    W_enc (d_in, d_dict)   W_dec (d_dict, d_out)   b_enc   b_dec   threshold, W_skip (out, in)

Version 6 keeps hook names under `metadata`, version 5 beside the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from circuits.formats.hooks import READ_POINTS, WRITE_POINTS, layer_of, point
from circuits.formats.stored import (
    StoredSet,
    WeightsFormatError,
    alike,
    beside,
    mapped,
    needed,
    read_json,
    transcoder,
)
from circuits.places import Place
from circuits.points import ReadPoint, WritePoint
from circuits.transcoders import Transcoder

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
    points: set[tuple[ReadPoint, WritePoint]] = set()
    for file in place.files:
        if file.rpartition("/")[2] != WEIGHTS:
            continue
        path = place.path(beside(file, CONFIG))
        config = read_json(path)
        told = {**config, **config.get("metadata", {})}
        refuse_unusual(path, config)
        layer = layer_of(str(told.get("hook_name")))
        if layer is None:
            raise WeightsFormatError(f"{path} does not tell a layer in hook_name.")
        if layer in layers:
            raise WeightsFormatError(f"{place.name} holds several dictionaries of layer {layer}.")
        points.add(
            (
                point(path, "hook_name", told.get("hook_name"), READ_POINTS),
                point(path, "hook_name_out", told.get("hook_name_out"), WRITE_POINTS),
            )
        )
        layers[layer] = _layer(place.path(file))
    return StoredSet(layers, *alike(points, place.name), cross_layer=False, partial=True)


def _layer(path: Path) -> Transcoder:
    tensors = mapped(path)
    needed(tensors, ("W_enc", "W_dec", "b_enc", "b_dec"), path)
    return transcoder(
        path,
        encoder=tensors["W_enc"],
        encoder_bias=tensors["b_enc"],
        decoders=(tensors["W_dec"],),
        decoder_bias=tensors["b_dec"],
        by_input=True,
        threshold=tensors.get("threshold"),
        skip=tensors.get("W_skip"),
    )


def refuse_unusual(path: Path, config: dict[str, Any]) -> None:
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
    normalised = config.get("normalize_activations", "none")
    if normalised not in ("none", None, "expected_average_only_in"):
        raise WeightsFormatError(
            f"{path} normalises its inputs by {normalised!r}, which is not linear on a prompt: "
            "fold it in before it is used."
        )
