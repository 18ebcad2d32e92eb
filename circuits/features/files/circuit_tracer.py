"""circuit-tracer's layout: `config.yaml` and a file per layer, or a list of files elsewhere.

A per-layer set has `layer_{i}.safetensors` with

    W_enc (d_dict, d_model)   W_dec (d_dict, d_model)   b_enc (d_dict)   b_dec (d_model)
    activation_function.threshold (d_dict), optional     W_skip (out, in), optional

a cross-layer set `W_enc_{i}.safetensors` with W_enc_{i}, b_enc_{i}, b_dec_{i} and optionally
threshold_{i}, and `W_dec_{i}.safetensors` with W_dec_{i} (d_dict, L - i, d_model), whose middle
axis counts written layers from the feature's own.  `transcoders` may list one file per layer
instead, as `hf://` references or paths, which are then read by what they hold; published lists
repeat their last file.  circuit-tracer 0.1 knew such lists alone, in a YAML file of any name,

    transcoders: [{id: …, layer: 0, filepath: hf://owner/name/file?revision=…}, …]

A threshold makes a JumpReLU, `activation: topk` with `k` a TopK (negative values kept, as
circuit-tracer does), anything else a ReLU.  `training_documents`, which headwater's training
writes, says how documents began: whether with BOS (`bos`), and how many first positions had no
features (`context_only`), if not by their tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from torch import Tensor

from circuits.features.files import gemma_scope
from circuits.features.files.configs import read_yaml
from circuits.features.files.hook_names import READ_POINTS, WRITE_POINTS, point
from circuits.features.files.locations import CONFIGS, Folder, HubFolder, Place, find_place
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    by_names,
    mapped,
    needed,
    transcoder,
    unsaid,
)
from circuits.features.nonlinearities import Nonlinearity, TopK
from circuits.features.transcoder import Transcoder
from graphs.core.opening import DocumentOpening

P = TypeVar("P")
CONFIG, DOCUMENTS = "config.yaml", "training_documents"
KINDS = ("transcoder_set", "cross_layer_transcoder")


def recognised(place: Place) -> bool:
    """Whether there is a config.yaml, or a list alone."""
    return _told_in(place) is not None


def _told_in(place: Place) -> str | None:
    """The YAML file that says what the set is."""
    others = [file for file in place.files if file not in CONFIGS]
    alone = len(others) == 1 and others[0].endswith((".yaml", ".yml"))
    return others[0] if alone else CONFIG if CONFIG in place.files else None


def read(place: Place) -> StoredSet:
    """The set.  Raises WeightsFormatError for anything missing or damaged."""
    path = place.path(_told_in(place) or CONFIG)
    config = read_yaml(path)
    kind = str(config.get("model_kind", KINDS[0]))
    if kind not in KINDS:
        raise WeightsFormatError(
            f"{path} has model_kind {kind!r}: expected one of {', '.join(KINDS)}."
        )
    crossing = kind == KINDS[1]
    listed = config.get("transcoders")
    sources: tuple[Place, ...] = ()
    if listed is not None:
        layers, sources = _listed(place, path, config, crossing)
    elif crossing:
        layers = cross_layer(place)
    else:
        layers = per_layer(place, config, path)
    return StoredSet(
        layers=dict(enumerate(layers)),
        read=_point(path, config, "feature_input_hook", READ_POINTS),
        write=_point(path, config, "feature_output_hook", WRITE_POINTS),
        cross_layer=crossing,
        name=str(config["scan"]) if isinstance(config.get("scan"), str) else None,
        sources=sources,
        documents=_documents(path, config.get(DOCUMENTS)),
    )


def _documents(path: Path, told: object) -> DocumentOpening | None:
    """What headwater's own training writes about its documents."""
    try:
        return None if told is None else DocumentOpening.model_validate(told)
    except ValidationError as error:
        raise WeightsFormatError(
            f"{path} has `{DOCUMENTS}`, but not as `bos` and `context_only`: "
            f"{error.errors()[0]['msg']}."
        ) from error


def _point(path: Path, config: dict[str, Any], key: str, known: dict[str, P]) -> P | Unknown:
    return point(path, key, config[key], known) if key in config else unsaid(str(path.parent))


def per_layer(
    place: Place, config: dict[str, Any] | None = None, path: Path | None = None
) -> list[Transcoder]:
    """The layers of a per-layer set; without a config the tensors alone decide."""
    layers: list[Transcoder] = []
    for name in numbered(place, "layer_{}.safetensors"):
        file = place.path(name)
        tensors = mapped(file)
        layers.append(_layer(file, tensors, _top_k(path or file, config or {}, tensors)))
    return layers


def cross_layer(place: Place) -> list[Transcoder]:
    """The layers of a cross-layer set; a threshold alone decides about the nonlinearity."""
    layers: list[Transcoder] = []
    for layer, name in enumerate(numbered(place, "W_enc_{}.safetensors")):
        path, other = place.path(name), f"W_dec_{layer}.safetensors"
        if other not in place.files:
            raise WeightsFormatError(f"{other} is missing in {place.name}, beside {name}.")
        names = {key: f"{key}_{layer}" for key in ("W_enc", "b_enc", "b_dec", "W_dec")}
        encoder, decoder = mapped(path), mapped(place.path(other))
        needed(encoder, (names["W_enc"], names["b_enc"], names["b_dec"]), path)
        needed(decoder, (names["W_dec"],), place.path(other))
        layers.append(
            transcoder(
                path,
                encoder=encoder[names["W_enc"]],
                encoder_bias=encoder[names["b_enc"]],
                decoders=by_written_layer(decoder[names["W_dec"]], place.path(other)),
                decoder_bias=encoder[names["b_dec"]],
                threshold=encoder.get(f"threshold_{layer}"),
            )
        )
    return layers


def by_written_layer(decoder: Tensor, path: Path) -> tuple[Tensor, ...]:
    """The matrices of a decoder (d_dict, written, d_model)."""
    if decoder.ndim != 3:
        raise WeightsFormatError(
            f"The decoder in {path} has shape {tuple(decoder.shape)}, expected "
            "(features, written layers, d_model)."
        )
    return decoder.unbind(1)


def numbered(place: Place, pattern: str) -> list[str]:
    """Files pattern.format(0), pattern.format(1), … as far as they go; no gaps allowed."""
    start, _, end = pattern.partition("{}")
    count = sum(file.startswith(start) and file.endswith(end) for file in place.files)
    names = [pattern.format(number) for number in range(max(count, 1))]
    for name in names:
        if name not in place.files:
            raise WeightsFormatError(
                f"{name} is missing: {place.name} has {count} files like it, numbered from 0."
            )
    return names


def _listed(
    place: Place, path: Path, config: dict[str, Any], crossing: bool
) -> tuple[list[Transcoder], tuple[Place, ...]]:
    """One file per layer, wherever they are, and the places that they are from."""
    entries = _entries(path, config["transcoders"])
    places = [_place(place, entry, path) for entry in entries]
    files = [_file(at, entry, path) for at, entry in zip(places, entries, strict=True)]
    if crossing:
        layers = [
            gemma_scope.cross_layer(file, layer, len(files)) for layer, file in enumerate(files)
        ]
    else:
        layers = [_single(file, config, path) for file in files]
    here = {
        f"{layer}/{file.name}": file
        for layer, (at, file) in enumerate(zip(places, files, strict=True))
        if isinstance(at, Folder) and at is not place
    }
    far = [at for at in places if isinstance(at, HubFolder)]
    return layers, (*far, Folder(place.name, here)) if here else tuple(far)


def _entries(path: Path, listed: object) -> list[str]:
    """The file of each layer; where entries do not say theirs, one that comes again is left out."""
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
                    f"{path} has `transcoders`, but not as a list of files, or of entries with a "
                    "number as `layer` and a file as `filepath`."
                )
    if sorted(by_layer) != list(range(len(by_layer))):
        raise WeightsFormatError(
            f"{path} lists layers {', '.join(map(str, sorted(by_layer)))}: expected every layer "
            "from 0 on."
        )
    return [by_layer[layer] for layer in sorted(by_layer)]


def _place(place: Place, entry: str, told: Path) -> Place:
    """Where a listed file is: a path is looked for from the list on, then from where we are."""
    if entry in place.files:
        return place
    if entry.startswith("hf://"):
        return find_place(entry)
    for path in (told.parent / entry, Path(entry)):
        if path.is_file():
            return find_place(path)
    raise WeightsFormatError(
        f"{told} lists {entry!r}, which is no file: give hf://owner/name/file, or a path from "
        "where the list is."
    )


def _file(place: Place, entry: str, told: Path) -> Path:
    """A listed file: relative to the list, or the one that its reference names."""
    name = entry if entry in place.files else entry.partition("?")[0].rpartition("/")[2]
    if name not in place.files:
        raise WeightsFormatError(f"{entry!r} in {told} must be one file.")
    return place.path(name)


def _single(path: Path, config: dict[str, Any], told: Path) -> Transcoder:
    """One layer in any of the formats that such lists name; `told` is where the config lies."""
    tensors = mapped(path)
    if "w_enc" in tensors or path.suffix == ".npz":
        return gemma_scope.single(path)
    return _layer(path, tensors, _top_k(told, config, tensors))


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
    """A TopK if one is asked for, by the config or by the 0-d `k` of circuit-tracer's exporter."""
    if "k" in tensors:
        return TopK(int(tensors["k"].flatten()[0]), signed=True)
    if config.get("activation") != "topk":
        return None
    if type(config.get("k")) is not int or config["k"] < 1:  # True is an int too
        raise WeightsFormatError(
            f"{path} says activation: topk, but k is {config.get('k')!r}: give the number of "
            "features per position."
        )
    return TopK(config["k"], signed=True)
