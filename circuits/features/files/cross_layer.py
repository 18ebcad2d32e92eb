"""Two smaller layouts of cross-layer sets.

The older mntss branches store decoders with the layer that they write to:

    encoder_layer_{l}.safetensors   W_enc (d_dict, d)   b_enc
    decoder_layer_{m}.safetensors   W_dec_from_{l} (d, d_dict) for l = 0 … m   b_dec   W_skip

ByteDance's Cross-Layer-TopK has circuit-tracer's files without biases and thresholds, and selects,
over all layers of a token together, the features with the largest activation times decoder norm:
`k` per layer on average, in config.json.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuits.features.files.circuit_tracer import by_written_layer, numbered
from circuits.features.files.configs import read_json
from circuits.features.files.locations import Location
from circuits.features.files.tensors import (
    StoredSet,
    WeightsFormatError,
    mapped,
    require_tensors,
    transcoder,
)
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import JointTopK, ReLU, Transcoder

ENCODER, DECODER = "encoder_layer_{}.safetensors", "decoder_layer_{}.safetensors"
JOINT_CONFIG = "config.json"


def recognised(location: Location) -> bool:
    """Whether files have the names of either layout."""
    return ENCODER.format(0) in location.files or _is_joint(location)


def _is_joint(location: Location) -> bool:
    return "W_enc_0.safetensors" in location.files and JOINT_CONFIG in location.files


def read(location: Location) -> StoredSet:
    """The set.  Raises WeightsFormatError for anything missing or damaged."""
    return _joint(location) if _is_joint(location) else _by_target(location)


def _by_target(location: Location) -> StoredSet:
    encoders, decoders = numbered(location, ENCODER), numbered(location, DECODER)
    if len(encoders) != len(decoders):
        raise WeightsFormatError(
            f"{location.name} has {len(encoders)} encoders and {len(decoders)} decoders."
        )
    written = [mapped(location.path(name)) for name in decoders]
    layers: dict[int, Transcoder] = {}
    for layer, name in enumerate(encoders):
        path = location.path(name)
        encoder = mapped(path)
        require_tensors(encoder, ("W_enc", "b_enc"), path)
        blocks: list[Tensor] = []
        for target in range(layer, len(written)):
            require_tensors(
                written[target], (f"W_dec_from_{layer}", "b_dec"), location.path(decoders[target])
            )
            blocks.append(written[target][f"W_dec_from_{layer}"].T)
        layers[layer] = transcoder(
            path,
            encoder=encoder["W_enc"],
            encoder_bias=encoder["b_enc"],
            decoders=tuple(blocks),
            decoder_bias=written[layer]["b_dec"],
            skip=written[layer].get("W_skip"),
        )
    # They were trained on the residual stream before the norm (their converter's hookpoints).
    return StoredSet(layers, ReadPoint.RESIDUAL, WritePoint.CONTRIBUTION, cross_layer=True)


def _joint(location: Location) -> StoredSet:
    config = read_json(location.path(JOINT_CONFIG))
    k = config.get("k")
    if type(k) is not int or k < 1:
        raise WeightsFormatError(
            f"{JOINT_CONFIG} of {location.name} has k {k!r}: expected a positive integer."
        )
    layers: dict[int, Transcoder] = {}
    norms: list[Tensor] = []
    for layer, name in enumerate(numbered(location, "W_enc_{}.safetensors")):
        path, other = location.path(name), location.path(f"W_dec_{layer}.safetensors")
        encoder, decoder = mapped(path), mapped(other)
        require_tensors(encoder, (f"W_enc_{layer}",), path)
        require_tensors(decoder, (f"W_dec_{layer}",), other)
        matrix = encoder[f"W_enc_{layer}"]
        norms.append(_norm(encoder | decoder, layer))
        layers[layer] = transcoder(
            path,
            encoder=matrix,
            encoder_bias=torch.zeros(matrix.shape[0]),
            decoders=by_written_layer(decoder[f"W_dec_{layer}"], other),
            decoder_bias=torch.zeros(matrix.shape[1]),
            nonlinearity=ReLU(),
        )
    joint = JointTopK(k * len(layers), tuple(norms))
    # Its model card: inputs are the residual stream before the norm, outputs those of the MLP.
    return StoredSet(
        layers, ReadPoint.RESIDUAL, WritePoint.MLP_OUTPUT, cross_layer=True, joint=joint
    )


def _norm(tensors: dict[str, Tensor], layer: int) -> Tensor:
    stored = tensors.get(f"W_dec_norm_{layer}")
    if stored is not None:
        return stored.float()
    return tensors[f"W_dec_{layer}"].float().flatten(1).norm(dim=1)
