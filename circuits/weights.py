"""Dictionary files to canonical tensors: the circuit-tracer folder, per layer and cross-layer.

A folder holds `config.yaml` and, for a per-layer set, `layer_{i}.safetensors` with

    W_enc (d_dict, d_model)   W_dec (d_dict, d_model)   b_enc (d_dict)   b_dec (d_model)
    activation_function.threshold (d_dict), optional     W_skip (out, in), optional

or, for a cross-layer set, `W_enc_{i}.safetensors` with W_enc_{i}, b_enc_{i}, b_dec_{i} and
optionally threshold_{i}, and `W_dec_{i}.safetensors` with W_dec_{i} (d_dict, L - i, d_model),
whose middle axis counts written layers from the feature's own.  Row f of every matrix is
feature f.  A threshold makes a JumpReLU, `activation: topk` with `k` a TopK (negative values
kept, as circuit-tracer does), anything else a ReLU.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from circuits.descriptions import feature_files
from circuits.nonlinearities import JumpReLU, Nonlinearity, ReLU, TopK
from circuits.points import ReadPoint, WritePoint
from circuits.transcoders import Transcoder, TranscoderSet
from graphs.provenance import DictionaryIdentity

READ_POINTS = {  # TransformerLens hook, without its block → what it is
    "hook_resid_mid": ReadPoint.RESIDUAL,
    "ln2.hook_normalized": ReadPoint.NORMALISED,
    "mlp.hook_in": ReadPoint.MLP_INPUT,
}
WRITE_POINTS = {
    "mlp.hook_out": WritePoint.MLP_OUTPUT,
    "hook_mlp_out": WritePoint.CONTRIBUTION,
}


class WeightsFormatError(ValueError):
    """A dictionary's files are missing, damaged or not in a known format."""


def read_transcoders(
    folder: Path | str, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> TranscoderSet:
    """The transcoders in a folder.  Raises WeightsFormatError for anything missing or damaged."""
    folder = Path(folder)
    config = _config(folder)
    kind = str(config.get("model_kind", "transcoder_set"))
    readers = {"transcoder_set": _per_layer, "cross_layer_transcoder": _cross_layer}
    if kind not in readers:
        raise WeightsFormatError(
            f"{folder / 'config.yaml'} has model_kind {kind!r}: expected one of "
            f"{', '.join(readers)}."
        )
    names = {"transcoder_set": "transcoder", "cross_layer_transcoder": "cross-layer transcoder"}
    return TranscoderSet(
        layers=tuple(
            _placed(layer, dtype, torch.device(device)) for layer in readers[kind](folder, config)
        ),
        read=_point(folder, config, "feature_input_hook", READ_POINTS),
        write=_point(folder, config, "feature_output_hook", WRITE_POINTS),
        identity=DictionaryIdentity(
            kind=names[kind],
            name=str(config.get("scan") or folder.name),
            revision=_fingerprint(folder),
        ),
        features=feature_files(folder),
    )


def _fingerprint(folder: Path) -> str:
    """Names the content of a folder: a hash of every file's name, size and first megabyte."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.yaml", *folder.glob("*.safetensors")]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(2**20))
    return f"sha256:{digest.hexdigest()[:16]}"


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsFormatError(
            f"There is no {path}: --transcoders needs a folder on disk with config.yaml and the "
            "safetensors files of a transcoder set; get one with `hf download NAME --local-dir "
            "FOLDER`."
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise WeightsFormatError(f"{path} cannot be read as YAML: {first}.") from error
    if not isinstance(config, dict):
        raise WeightsFormatError(f"{path} must hold keys and values, got {type(config).__name__}.")
    return config


def _point(folder: Path, config: dict[str, Any], key: str, known: dict[str, Any]):
    hook = config.get(key)
    if not isinstance(hook, str) or hook not in known:
        raise WeightsFormatError(
            f"{folder / 'config.yaml'} has {key} {hook!r}: expected one of {', '.join(known)}."
        )
    return known[hook]


def _per_layer(folder: Path, config: dict[str, Any]) -> list[Transcoder]:
    paths = _numbered(folder, "layer_{}.safetensors")
    layers = []
    for path in paths:
        tensors = _tensors(path, required=("W_enc", "W_dec", "b_enc", "b_dec"))
        threshold = tensors.get("activation_function.threshold")
        if "k" in tensors:  # circuit-tracer's exporter puts it beside the matrices
            config = {**config, "activation": "topk", "k": tensors["k"].flatten()[0].int().item()}
        transcoder = _transcoder(
            path,
            encoder=tensors["W_enc"],
            encoder_bias=tensors["b_enc"],
            decoder=_one_written_layer(tensors["W_dec"]),
            decoder_bias=tensors["b_dec"],
            nonlinearity=_nonlinearity(folder, config, threshold),
            skip=tensors.get("W_skip"),
        )
        layers.append(transcoder)
    return layers


def _one_written_layer(decoder: Tensor) -> Tensor:
    """With an axis of one written layer; what is no matrix stays none, and is refused later."""
    return decoder[:, None] if decoder.ndim == 2 else decoder[None]


def _cross_layer(folder: Path, config: dict[str, Any]) -> list[Transcoder]:
    del config  # circuit-tracer decides by the threshold alone
    layers = []
    for layer, path in enumerate(_numbered(folder, "W_enc_{}.safetensors")):
        names = {name: f"{name}_{layer}" for name in ("W_enc", "b_enc", "b_dec", "W_dec")}
        encoder = _tensors(path, required=(names["W_enc"], names["b_enc"], names["b_dec"]))
        decoder_path = folder / f"W_dec_{layer}.safetensors"
        decoder = _tensors(decoder_path, required=(names["W_dec"],))
        threshold = encoder.get(f"threshold_{layer}")
        transcoder = _transcoder(
            path,
            encoder=encoder[names["W_enc"]],
            encoder_bias=encoder[names["b_enc"]],
            decoder=decoder[names["W_dec"]],
            decoder_bias=encoder[names["b_dec"]],
            nonlinearity=ReLU() if threshold is None else JumpReLU(threshold),
        )
        layers.append(transcoder)
    return layers


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Files pattern.format(0), pattern.format(1), … as far as they go; no gaps allowed."""
    count = len(list(folder.glob(pattern.format("*"))))
    paths = [folder / pattern.format(number) for number in range(max(count, 1))]
    for path in paths:
        if not path.exists():
            raise WeightsFormatError(
                f"{path} is missing: {folder} has {count} files like it, numbered from 0."
            )
    return paths


def _tensors(path: Path, required: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        first = str(error).splitlines()[0]
        raise WeightsFormatError(
            f"{path} is not a whole safetensors file ({first}): get it again."
        ) from error
    missing = [name for name in required if name not in tensors]
    if missing:
        raise WeightsFormatError(
            f"{path} lacks {', '.join(missing)}; it has {', '.join(sorted(tensors))}."
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsFormatError(
                f"{name} in {path} holds NaN or infinite values: the file is damaged, get it again."
            )
    return tensors


def _nonlinearity(folder: Path, config: dict[str, Any], threshold: Tensor | None) -> Nonlinearity:
    if config.get("activation") == "topk":
        if type(config.get("k")) is not int or config["k"] < 1:  # True is an int too
            raise WeightsFormatError(
                f"{folder / 'config.yaml'} says activation: topk, but k is {config.get('k')!r}: "
                "give the number of features per position."
            )
        return TopK(config["k"], signed=True)
    return ReLU() if threshold is None else JumpReLU(threshold)


def _transcoder(
    path: Path,
    *,
    encoder: Tensor,
    encoder_bias: Tensor,
    decoder: Tensor,
    decoder_bias: Tensor,
    nonlinearity: Nonlinearity,
    skip: Tensor | None = None,
) -> Transcoder:
    """A transcoder of matrices that fit each other.  Raises WeightsFormatError if they do not."""
    shape = tuple(encoder.shape)
    d_dict, d_model = shape if len(shape) == 2 else (-1, -1)
    # The middle axis of the decoder counts written layers; the model says how many there can be.
    written = decoder.shape[1] if decoder.ndim == 3 else -1
    expected = {
        "encoder": (shape, (d_dict, d_model) if len(shape) == 2 else ("d_dict", "d_model")),
        "decoder": (tuple(decoder.shape), (d_dict, written, d_model)),
        "encoder bias": (tuple(encoder_bias.shape), (d_dict,)),
        "decoder bias": (tuple(decoder_bias.shape), (d_model,)),
    }
    if skip is not None:
        expected["skip"] = (tuple(skip.shape), (d_model, d_model))
    if isinstance(nonlinearity, JumpReLU):
        expected["threshold"] = (tuple(nonlinearity.threshold.shape), (d_dict,))
    for name, (got, wanted) in expected.items():
        if got != wanted:
            raise WeightsFormatError(
                f"The {name} in {path} has shape {got}, an encoder of shape {shape} "
                f"asks for {wanted}."
            )
    return Transcoder(encoder, encoder_bias, decoder, decoder_bias, nonlinearity, skip)


def _placed(transcoder: Transcoder, dtype: torch.dtype, device: torch.device) -> Transcoder:
    """The same transcoder in another dtype and on another device."""
    nonlinearity = transcoder.nonlinearity
    if isinstance(nonlinearity, JumpReLU):
        nonlinearity = JumpReLU(nonlinearity.threshold.to(device, dtype))
    skip = transcoder.skip
    return Transcoder(
        encoder=transcoder.encoder.to(device, dtype),
        encoder_bias=transcoder.encoder_bias.to(device, dtype),
        decoder=transcoder.decoder.to(device, dtype),
        decoder_bias=transcoder.decoder_bias.to(device, dtype),
        nonlinearity=nonlinearity,
        skip=None if skip is None else skip.to(device, dtype),
    )
