"""circuit-tracer's layout: `config.yaml` and a file per layer, or a list of files elsewhere.

A per-layer set has `layer_{i}.safetensors` with

    W_enc (d_dict, d_model)   W_dec (d_dict, d_model)   b_enc (d_dict)   b_dec (d_model)
    activation_function.threshold (d_dict), optional     W_skip (out, in), optional

a cross-layer set `W_enc_{i}.safetensors` with W_enc_{i}, b_enc_{i}, b_dec_{i} and optionally
threshold_{i}, and `W_dec_{i}.safetensors` with W_dec_{i} (d_dict, L - i, d_model), whose middle
axis counts written layers from the feature's own.  `transcoders` may list one file per layer
instead, as `hf://` references or paths, whose formats are detected by content; published lists
repeat their last file.  circuit-tracer 0.1 had only such lists, in a YAML file of any name,

    transcoders: [{id: …, layer: 0, filepath: hf://owner/name/file?revision=…}, …]

A threshold makes a JumpReLU, `activation: topk` with `k` a TopK (negative values kept, as
circuit-tracer does), anything else a ReLU.  `training_documents`, which headwater's training
writes, describes how documents began: whether with BOS (`bos`), and the number of prefix positions
(`context_only`), if not decided by their tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor

from circuits.features.files import gemma_scope
from circuits.features.files.configs import read_yaml
from circuits.features.files.hook_names import READ_POINTS, WRITE_POINTS, point
from circuits.features.files.locations import CONFIGS, Folder, HubFolder, Location, find_location
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    by_names,
    mapped,
    require_tensors,
    transcoder,
    unspecified,
)
from circuits.features.transcoder import Nonlinearity, TopK, Transcoder
from graphs.core.opening import DocumentOpening

P = TypeVar("P")
CONFIG, DOCUMENTS = "config.yaml", "training_documents"
LAYERS = "layers"  # headwater's own: those that have files, where some have none
RELU_FIRST = "relu_before_topk"  # headwater's own: its TopK keeps no negative values
KINDS = ("transcoder_set", "cross_layer_transcoder")


def recognised(location: Location) -> bool:
    """Whether there is a config.yaml, or a single list."""
    return _config_file(location) is not None


def _config_file(location: Location) -> str | None:
    """The YAML file that describes the set."""
    others = [file for file in location.files if file not in CONFIGS]
    alone = len(others) == 1 and others[0].endswith((".yaml", ".yml"))
    return others[0] if alone else CONFIG if CONFIG in location.files else None


def read(location: Location) -> StoredSet:
    """The set.  Raises WeightsFormatError for anything missing or damaged."""
    path = location.path(_config_file(location) or CONFIG)
    config = read_yaml(path)
    kind = str(config.get("model_kind", KINDS[0]))
    if kind not in KINDS:
        raise WeightsFormatError(
            f"{path} has model_kind {kind!r}: expected one of {', '.join(KINDS)}."
        )
    crossing = kind == KINDS[1]
    listed = config.get("transcoders")
    sources: tuple[Location, ...] = ()
    if listed is not None:
        layers, sources = _listed(location, path, config, crossing)
        layers = dict(enumerate(layers))
    elif crossing:
        layers = cross_layer(location, config, path)
    else:
        layers = per_layer(location, config, path)
    return StoredSet(
        layers=layers,
        read=_point(path, config, "feature_input_hook", READ_POINTS),
        write=_point(path, config, "feature_output_hook", WRITE_POINTS),
        cross_layer=crossing,
        name=str(config["scan"]) if isinstance(config.get("scan"), str) else None,
        sources=sources,
        partial=LAYERS in config,
        documents=_documents(path, config.get(DOCUMENTS)),
    )


def _documents(path: Path, stored: object) -> DocumentOpening | None:
    """How training documents began, as headwater's training writes it."""
    try:
        return None if stored is None else DocumentOpening.model_validate(stored)
    except ValidationError as error:
        raise WeightsFormatError(
            f"`{DOCUMENTS}` in {path} must have `bos` and `context_only`: "
            f"{error.errors()[0]['msg']}."
        ) from error


def _point(path: Path, config: dict[str, Any], key: str, known: dict[str, P]) -> P | Unknown:
    return point(path, key, config[key], known) if key in config else unspecified(str(path.parent))


def per_layer(location: Location, config: dict[str, Any], path: Path) -> dict[int, Transcoder]:
    """The layers of a per-layer set; without a config, tensors decide the nonlinearity."""
    layers: dict[int, Transcoder] = {}
    for layer, name in _files(location, "layer_{}.safetensors", config, path):
        file = location.path(name)
        tensors = mapped(file)
        layers[layer] = _layer(file, tensors, _top_k(path, config, tensors))
    return layers


def cross_layer(location: Location, config: dict[str, Any], path: Path) -> dict[int, Transcoder]:
    """The layers of a cross-layer set; without a TopK in the config, thresholds decide."""
    layers, nonlinearity = dict[int, Transcoder](), _top_k(path, config, {})
    for layer, name in _files(location, "W_enc_{}.safetensors", config, path):
        file, other = location.path(name), f"W_dec_{layer}.safetensors"
        if other not in location.files:
            raise WeightsFormatError(f"{location.name} has {name}, but {other} is missing.")
        names = {key: f"{key}_{layer}" for key in ("W_enc", "b_enc", "b_dec", "W_dec")}
        encoder, decoder = mapped(file), mapped(location.path(other))
        require_tensors(encoder, (names["W_enc"], names["b_enc"], names["b_dec"]), file)
        require_tensors(decoder, (names["W_dec"],), location.path(other))
        layers[layer] = transcoder(
            file,
            encoder=encoder[names["W_enc"]],
            encoder_bias=encoder[names["b_enc"]],
            decoders=by_written_layer(decoder[names["W_dec"]], location.path(other)),
            decoder_bias=encoder[names["b_dec"]],
            nonlinearity=nonlinearity,
            threshold=encoder.get(f"threshold_{layer}"),
        )
    return layers


def _files(
    location: Location, pattern: str, config: dict[str, Any], path: Path
) -> list[tuple[int, str]]:
    """Each layer's number and file: those that the config lists, or all from 0 on."""
    if LAYERS not in config:
        return list(enumerate(numbered(location, pattern)))
    listed = config[LAYERS]
    if not isinstance(listed, list) or not all(type(one) is int and one >= 0 for one in listed):
        raise WeightsFormatError(f"`{LAYERS}` in {path} must be a list of layer numbers.")
    files = [(layer, pattern.format(layer)) for layer in sorted(set(listed))]
    missing = [name for _, name in files if name not in location.files]
    if missing or not files:
        raise WeightsFormatError(
            f"{path} lists layers {listed}, but {location.name} lacks "
            f"{', '.join(missing) or 'all'}: download it again."
        )
    return files


def by_written_layer(decoder: Tensor, path: Path) -> tuple[Tensor, ...]:
    """The matrices of a decoder (d_dict, written, d_model)."""
    if decoder.ndim != 3:
        raise WeightsFormatError(
            f"The decoder in {path} has shape {tuple(decoder.shape)}, expected "
            "(features, written layers, d_model)."
        )
    return decoder.unbind(1)


def numbered(location: Location, pattern: str) -> list[str]:
    """Files pattern.format(0), pattern.format(1), … as far as they go; no gaps allowed."""
    start, _, end = pattern.partition("{}")
    count = sum(file.startswith(start) and file.endswith(end) for file in location.files)
    names = [pattern.format(number) for number in range(max(count, 1))]
    for name in names:
        if name not in location.files:
            raise WeightsFormatError(
                f"{name} is missing: {location.name} has {count} such files, numbered from 0."
            )
    return names


def _listed(
    location: Location, path: Path, config: dict[str, Any], crossing: bool
) -> tuple[list[Transcoder], tuple[Location, ...]]:
    """The layers of a list of files, and the locations that these are from."""
    entries = _entries(path, config["transcoders"])
    locations = [_location(location, entry, path) for entry in entries]
    files = [_file(at, entry, path) for at, entry in zip(locations, entries, strict=True)]
    if crossing:
        layers = [
            gemma_scope.cross_layer(file, layer, len(files)) for layer, file in enumerate(files)
        ]
    else:
        layers = [_single(file, config, path) for file in files]
    here = {
        f"{layer}/{file.name}": file
        for layer, (at, file) in enumerate(zip(locations, files, strict=True))
        if isinstance(at, Folder) and at is not location
    }
    far = [at for at in locations if isinstance(at, HubFolder)]
    return layers, (*far, Folder(location.name, here)) if here else tuple(far)


def _entries(path: Path, listed: object) -> list[str]:
    """The file of each layer; in lists without layer numbers, repeated files are left out."""
    entries: list[Any] = listed if isinstance(listed, list) else []
    if entries and all(isinstance(entry, str) for entry in entries):
        return list(dict.fromkeys(entries))
    by_layer: dict[int, str] = {}
    for entry in entries or [None]:
        match entry:
            case {"layer": int(layer), "filepath": str(file)} if layer not in by_layer:
                by_layer[layer] = file
            case {"layer": int(layer), "filepath": str()}:
                raise WeightsFormatError(f"{path} lists layer {layer} twice: keep one of them.")
            case _:
                raise WeightsFormatError(
                    f"`transcoders` in {path} must be a list of files, or of entries with a "
                    "number as `layer` and a file as `filepath`."
                )
    if sorted(by_layer) != list(range(len(by_layer))):
        raise WeightsFormatError(
            f"{path} lists layers {', '.join(map(str, sorted(by_layer)))}: expected every layer "
            "from 0 on."
        )
    return [by_layer[layer] for layer in sorted(by_layer)]


def _location(location: Location, entry: str, listing: Path) -> Location:
    """Where a listed file is: paths are relative to the list, else to the working directory."""
    if entry in location.files:
        return location
    if entry.startswith("hf://"):
        return find_location(entry)
    for path in (listing.parent / entry, Path(entry)):
        if path.is_file():
            return find_location(path)
    raise WeightsFormatError(
        f"{listing} lists {entry!r}, which is not a file: give hf://owner/name/file, or a path "
        "relative to the list."
    )


def _file(location: Location, entry: str, listing: Path) -> Path:
    """A listed file: relative to the list, or the one that its reference names."""
    name = entry if entry in location.files else entry.partition("?")[0].rpartition("/")[2]
    if name not in location.files:
        raise WeightsFormatError(f"{entry!r} in {listing} must name one file.")
    return location.path(name)


def _single(path: Path, config: dict[str, Any], listing: Path) -> Transcoder:
    """One layer in any of the formats that lists name; `config` is from the list."""
    tensors = mapped(path)
    if "w_enc" in tensors or path.suffix == ".npz":
        return gemma_scope.single(path)
    return _layer(path, tensors, _top_k(listing, config, tensors))


def _layer(path: Path, tensors: dict[str, Tensor], nonlinearity: Nonlinearity | None) -> Transcoder:
    """One layer of a per-layer set; without a nonlinearity its threshold decides."""
    return by_names(
        path,
        tensors,
        ("W_enc", "W_dec", "b_enc", "b_dec"),
        nonlinearity=nonlinearity,
        threshold=tensors.get("activation_function.threshold"),
        skip=tensors.get("W_skip"),
    )


def _top_k(path: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> Nonlinearity | None:
    """A TopK if the config, or the 0-d `k` of circuit-tracer's exporter, specifies one."""
    if "k" in tensors:
        return TopK(int(tensors["k"].flatten()[0]), signed=True)
    if config.get("activation") != "topk":
        return None
    if type(config.get("k")) is not int or config["k"] < 1:  # True is an int too
        raise WeightsFormatError(
            f"{path} has activation: topk, but k is {config.get('k')!r}: expected the number of "
            "features per position."
        )
    return TopK(config["k"], signed=config.get(RELU_FIRST) is not True)
