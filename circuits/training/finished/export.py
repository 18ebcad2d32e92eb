"""Write a transcoder set as the folder that headwater and circuit-tracer read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from circuits.features.files.circuit_tracer import DOCUMENTS, LAYERS, RELU_FIRST
from circuits.features.files.hook_names import READ_POINTS, WRITE_POINTS
from circuits.features.transcoder import JumpReLU, TopK, Transcoder
from circuits.features.transcoder_set import TranscoderSet
from graphs.disk.files import atomic_write, make_folder


def write_transcoders(
    transcoders: TranscoderSet,
    folder: Path,
    model: str,
    *,
    cross_layer: bool,
    dtype: torch.dtype = torch.float32,
) -> None:
    """One file per layer, encoders and decoders apart for a cross-layer set, and config.yaml.

    Layers without features have no file, and `layers` in config.yaml lists the others.

    Raises GraphFileError if a file cannot be written.
    """
    make_folder(folder)
    own = {layer: one for layer, one in enumerate(transcoders.layers) if one.d_dict}
    for layer, transcoder in own.items():
        files = _cross_layer(layer, transcoder) if cross_layer else _per_layer(layer, transcoder)
        for name, tensors in files.items():
            stored = {key: tensor.to(dtype).cpu().contiguous() for key, tensor in tensors.items()}
            with atomic_write(folder / name) as temporary:
                temporary.write_bytes(save(stored))
    config: dict[str, object] = {
        "model_name": model,
        "model_kind": "cross_layer_transcoder" if cross_layer else "transcoder_set",
        "feature_input_hook": _hook(READ_POINTS, transcoders.read),
        "feature_output_hook": _hook(WRITE_POINTS, transcoders.write),
        "scan": transcoders.identity.name,
    }
    if transcoders.partial:
        config[LAYERS] = list(own)
    match next(iter(own.values())).nonlinearity:
        case TopK(k=k, signed=signed):
            config |= {"activation": "topk", "k": k, RELU_FIRST: not signed}
        case _:
            pass
    documents = transcoders.identity.documents
    if documents is not None:  # ignored by circuit-tracer
        config[DOCUMENTS] = documents.model_dump(mode="json")
    with atomic_write(folder / "config.yaml") as temporary:
        text = yaml.safe_dump(config, sort_keys=False)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _hook(points: Mapping[str, object], point: object) -> str:
    return next(hook for hook, known in points.items() if known == point)


def _per_layer(layer: int, transcoder: Transcoder) -> dict[str, dict[str, Tensor]]:
    tensors = {
        "W_enc": transcoder.encoder,
        "W_dec": transcoder.decoders[0],
        "b_enc": transcoder.encoder_bias,
        "b_dec": transcoder.decoder_bias,
    }
    if isinstance(transcoder.nonlinearity, JumpReLU):
        tensors["activation_function.threshold"] = transcoder.nonlinearity.threshold
    if transcoder.skip is not None:
        tensors["W_skip"] = transcoder.skip
    return {f"layer_{layer}.safetensors": tensors}


def _cross_layer(layer: int, transcoder: Transcoder) -> dict[str, dict[str, Tensor]]:
    encoder = {
        f"W_enc_{layer}": transcoder.encoder,
        f"b_enc_{layer}": transcoder.encoder_bias,
        f"b_dec_{layer}": transcoder.decoder_bias,
    }
    if isinstance(transcoder.nonlinearity, JumpReLU):
        encoder[f"threshold_{layer}"] = transcoder.nonlinearity.threshold
    return {
        f"W_enc_{layer}.safetensors": encoder,
        f"W_dec_{layer}.safetensors": {f"W_dec_{layer}": torch.stack(transcoder.decoders, 1)},
    }
