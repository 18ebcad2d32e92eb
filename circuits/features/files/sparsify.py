"""EleutherAI's sparsify and its clt-training fork: a folder per hookpoint.

`layers.5.mlp/cfg.json` and `sae.safetensors` with

    encoder.weight (d_dict, d)  encoder.bias  W_dec (d_dict, d)  b_dec  W_skip (out, in), optional

Features are the k largest of a token after a ReLU.  In the fork the features of a layer write to
the layers above it as well, and `coalesce_topk` decides where their decoders are stored:

    none, group    W_decs.{j}, b_decs.{j}, W_skips.{j} in the file of layer l, for layer l + j
    … source tied  one W_dec in the file of layer l, for every layer that it writes to
    concat         one W_dec in the file of layer m, for the features of every layer below
    per-layer      W_dec (n_sources · d_dict, d) in the file of layer m, oldest layer first

`post_enc(s.{j})` is added to every feature that is active before it is decoded; `in_norm` and
`out_norm` are the mean norms to which inputs and outputs were scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.features.files.configs import read_json
from circuits.features.files.hook_names import INPUT_READ, OUTPUT_WRITTEN, layer_of, point
from circuits.features.files.locations import ABOVE, Location
from circuits.features.files.tensors import (
    StoredSet,
    Unknown,
    WeightsFormatError,
    mapped,
    require_tensors,
    sibling,
    transcoder,
)
from circuits.features.points import ReadPoint
from circuits.features.transcoder import BatchTopK, GroupMax, Nonlinearity, TopK

WEIGHTS, CONFIG, RUN = "sae.safetensors", "cfg.json", "config.json"


@dataclass(frozen=True)
class File:
    """What is stored at one hookpoint."""

    path: Path
    hookpoint: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def d_dict(self) -> int:
        return len(self.tensors["encoder.bias"])

    @property
    def n_targets(self) -> int:
        """Layers that its features write to."""
        return max(1, int(self.config.get("n_targets") or 1))

    @property
    def coalesced(self) -> str:
        return str(self.config.get("coalesce_topk") or "none")


def recognised(location: Location) -> bool:
    """Whether there are weights under sparsify's name."""
    return any(file.rpartition("/")[2] == WEIGHTS for file in location.files)


def read(location: Location) -> StoredSet:
    """The set, possibly of some layers only.  Raises WeightsFormatError if it cannot be read."""
    files = _files(location)
    hooks = {file.hookpoint.rpartition(".")[2] for file in files.values()}
    if len(hooks) != 1:
        raise WeightsFormatError(
            f"{location.name} has several hookpoints per layer ({', '.join(sorted(hooks))}): "
            "give one."
        )
    hook = hooks.pop()
    one = next(iter(files.values()))
    _refuse_gaps(location, files)
    return StoredSet(
        layers={
            layer: transcoder(
                file.path,
                encoder=file.tensors["encoder.weight"],
                encoder_bias=file.tensors["encoder.bias"],
                decoders=tuple(_decoder(files, layer, layer + j) for j in _offsets(files, layer)),
                decoder_bias=_bias(files, layer),
                nonlinearity=nonlinearity(file),
                skip=_skip(files, layer, layer),
                higher_skips=_higher_skips(files, layer),
                read_scale=scale(file, "in_norm"),
                write_scales=_write_scales(files, layer),
                added=_added(files, layer),
            )
            for layer, file in files.items()
        },
        read=_read_point(location),
        write=point(one.path, "hookpoint", hook, OUTPUT_WRITTEN),
        cross_layer=one.n_targets > 1,
        partial=True,
    )


def _files(location: Location) -> dict[int, File]:
    found: dict[int, File] = {}
    for name in location.files:
        folder, _, last = name.rpartition("/")
        if last != WEIGHTS:
            continue
        hookpoint = next(
            (part for part in reversed(folder.split("/")) if layer_of(part) is not None),
            location.name.rpartition("/")[2],
        )
        layer = layer_of(hookpoint)
        if layer is None:
            raise WeightsFormatError(f"{name} in {location.name} does not specify its layer.")
        if layer in found:
            raise WeightsFormatError(
                f"{location.name} has several dictionaries of layer {layer}: give one of them."
            )
        path, config_name = location.path(name), sibling(name, CONFIG)
        config = read_json(location.path(config_name)) if config_name in location.files else {}
        found[layer] = File(path, hookpoint, config, mapped(path))
        _refuse_unusual(found[layer])
    return dict(sorted(found.items()))


def is_transcoder_config(config: dict[str, Any]) -> bool:
    """Whether a cfg.json is a transcoder's; old ones are recognised by their skip only."""
    transcode = config.get("transcode")
    return bool(config.get("skip_connection") if transcode is None else transcode)


def _refuse_unusual(file: File) -> None:
    require_tensors(file.tensors, ("encoder.weight", "encoder.bias"), file.path)
    config = file.config
    if not is_transcoder_config(config):
        raise WeightsFormatError(
            f"{file.path} is an autoencoder of {file.hookpoint} (its cfg.json has neither "
            "transcode nor skip_connection), which does not replace an MLP: choose a transcoder, "
            "or list active features with `headwater features`."
        )
    if config.get("topk_coalesced"):
        raise WeightsFormatError(
            f"{file.path} selects its largest features over all source layers, separately for each "
            "layer that it writes to (topk_coalesced), which is not supported."
        )
    if config.get("secondary_target_tied"):
        raise WeightsFormatError(
            f"{file.path} has a second decoder for all layers below (secondary_target_tied), "
            "which is not supported."
        )


def _refuse_gaps(location: Location, files: dict[int, File]) -> None:
    """Raises WeightsFormatError for missing layers, which may store decoders of other layers."""
    wanted = {layer + j for layer in files for j in _offsets(files, layer)}
    if any(file.n_targets > 1 for file in files.values()):
        wanted |= set(range(max(files)))
    missing = ", ".join(map(str, sorted(wanted - set(files))))
    if missing:
        raise WeightsFormatError(
            f"{location.name} is a cross-layer set and lacks layers {missing}: give the whole set."
        )


def _offsets(files: dict[int, File], layer: int) -> range:
    """Offsets from a layer to the layers that it writes to."""
    return range(files[layer].n_targets)


def _decoder(files: dict[int, File], source: int, target: int) -> Tensor:
    """The decoder from a layer's features to a layer."""
    file, other = files[source], files[target]
    tensors = file.tensors
    if file.coalesced == "concat":
        return _tensor(other, "W_dec")
    if file.coalesced == "per-layer":
        rows = _tensor(other, "W_dec")
        block = source - (target - len(rows) // file.d_dict + 1)
        return rows[block * file.d_dict : (block + 1) * file.d_dict]
    if f"W_decs.{target - source}" in tensors:
        return tensors[f"W_decs.{target - source}"]
    if source == target or file.config.get("per_source_tied"):
        return _tensor(file, "W_dec")
    return torch.zeros_like(_tensor(file, "W_dec"))


def _tensor(file: File, name: str) -> Tensor:
    require_tensors(file.tensors, (name,), file.path)
    return file.tensors[name]


def _bias(files: dict[int, File], target: int) -> Tensor:
    """The bias of a layer's output: the sum of what all layers that write to it add."""
    tensors = files[target].tensors
    if "b_decs.0" not in tensors:
        return _tensor(files[target], "b_dec").float() * scale(files[target], "out_norm")
    total = torch.zeros_like(tensors["b_decs.0"], dtype=torch.float32)
    for source, file in files.items():
        name = f"b_decs.{target - source}"
        if source <= target and target - source < file.n_targets and name in file.tensors:
            total += file.tensors[name].float() * _write_scale(files, source, target)
    return total


def _skip(files: dict[int, File], source: int, target: int) -> Tensor | None:
    """The matrix from a layer's input to the output of a layer, scaled like its features."""
    file = files[source]
    own = file.tensors.get("W_skip") if source == target else None
    skip = file.tensors.get(f"W_skips.{target - source}", own)
    factor = scale(file, "in_norm") * _write_scale(files, source, target)
    return skip if skip is None or factor == 1.0 else skip * factor


def _higher_skips(files: dict[int, File], layer: int) -> tuple[Tensor, ...]:
    found = (_skip(files, layer, layer + j) for j in _offsets(files, layer)[1:])
    skips = tuple(skip for skip in found if skip is not None)
    if 0 < len(skips) < len(_offsets(files, layer)) - 1:
        raise WeightsFormatError(f"{files[layer].path} lacks some of its W_skips: get it again.")
    return skips


def _added(files: dict[int, File], layer: int) -> tuple[Tensor, ...] | None:
    """What is added to active features before they are decoded, per written layer."""
    tensors, d_dict = files[layer].tensors, files[layer].d_dict
    names = [f"post_encs.{j}" for j in _offsets(files, layer)]
    if not tensors.keys() & {"post_enc", *names}:
        return None
    names[0] = names[0] if names[0] in tensors else "post_enc"
    return tuple(tensors.get(name, torch.zeros(d_dict)) for name in names)


def _write_scales(files: dict[int, File], layer: int) -> tuple[float | Tensor, ...]:
    """Factors of active features before they are decoded, per written layer.

    Trained scales (clt-training, `MidDecoder.current_latent_acts`) apply if cfg.json has
    post_encoder_scale; those of higher layers are initialised to 0, and are 0 if missing.
    """
    file = files[layer]
    scales = [_write_scale(files, layer, layer + j) for j in _offsets(files, layer)]
    if not file.config.get("post_encoder_scale"):
        return tuple(scales)
    own = file.tensors.get("post_enc_scale", 1.0)
    return tuple(
        factor * file.tensors.get(f"post_enc_scales.{j}", 0.0 if j else own)
        for j, factor in enumerate(scales)
    )


def scale(file: File, name: str) -> float:
    """The factor of inputs (`in_norm`) or outputs (`out_norm`)."""
    if name not in file.tensors:
        return 1.0
    norm, size = float(file.tensors[name].flatten()[0]), file.tensors["encoder.weight"].shape[1]
    return size**0.5 / norm if name == "in_norm" else norm / size**0.5


def _write_scale(files: dict[int, File], source: int, target: int) -> float:
    factor = scale(files[target], "out_norm")
    if source == target or not files[source].config.get("divide_cross_layer"):
        return factor
    sources = sum(s <= target < s + files[s].n_targets for s in files)
    return factor / max(1, sources - 1)


def nonlinearity(file: File) -> Nonlinearity:
    """The nonlinearity in cfg.json.  Raises WeightsFormatError if it is not a known one."""
    k, kind = file.config.get("k"), str(file.config.get("activation") or "topk")
    if type(k) is not int or k < 1:
        raise WeightsFormatError(
            f"{file.path} has k {k!r} in its cfg.json: expected a positive integer."
        )
    if file.config.get("signed"):
        raise WeightsFormatError(f"{file.path} keeps signed features, which is not supported.")
    if kind == "groupmax" and file.d_dict % k:
        raise WeightsFormatError(
            f"{file.path} has {file.d_dict} features, which is not divisible into {k} groups."
        )
    if kind == "groupmax":
        return GroupMax(k)
    if kind == "batchtopk":
        return BatchTopK(k)
    if kind != "topk":
        raise WeightsFormatError(
            f"{file.path} has activation {kind!r}: expected topk, batchtopk or groupmax."
        )
    return TopK(k)


def _read_point(location: Location) -> ReadPoint | Unknown:
    """The input of the MLP, or of the module in `hookpoints_in`."""
    for run in (RUN, f"{ABOVE}{RUN}"):
        if run in location.files:
            path = location.path(run)
            inputs = read_json(path).get("hookpoints_in")
            if isinstance(inputs, list) and inputs and isinstance(inputs[0], str):
                return point(path, "hookpoints_in", inputs[0], INPUT_READ)
    # By default the input is that of the module whose output is reconstructed: the MLP.
    return ReadPoint.MLP_INPUT
