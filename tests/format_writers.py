"""Tiny dictionaries in every published format, written from canonical transcoders.

Each writer puts a set into a folder as the format's documentation has it, independently of the
readers: shapes and names are spelled out here again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from circuits.features.transcoder import Transcoder
from circuits.features.transcoder_set import TranscoderSet

Writer = Callable[[TranscoderSet, Path], None]
PLT_HOOKS = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}


def store(tensors: dict[str, Tensor], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def as_json(data: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def threshold(layer: Transcoder) -> Tensor:
    return layer.nonlinearity.threshold  # pyright: ignore[reportAttributeAccessIssue]


def circuit_tracer(made: TranscoderSet, folder: Path) -> None:
    config = {"model_kind": "transcoder_set", "scan": "toy", **PLT_HOOKS}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for number, layer in enumerate(made.layers):
        tensors = {
            "W_enc": layer.encoder,
            "W_dec": layer.decoders[0],
            "b_enc": layer.encoder_bias,
            "b_dec": layer.decoder_bias,
            "activation_function.threshold": threshold(layer),
        }
        if layer.skip is not None:
            tensors["W_skip"] = layer.skip  # used as x @ W_skip.T
        store(tensors, folder / f"layer_{number}.safetensors")


def circuit_tracer_cross_layer(made: TranscoderSet, folder: Path) -> None:
    config = {"model_kind": "cross_layer_transcoder", **PLT_HOOKS}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for n, layer in enumerate(made.layers):
        encoder = {
            f"W_enc_{n}": layer.encoder,
            f"b_enc_{n}": layer.encoder_bias,
            f"b_dec_{n}": layer.decoder_bias,
            f"threshold_{n}": threshold(layer),
        }
        store(encoder, folder / f"W_enc_{n}.safetensors")
        decoder = torch.stack(layer.decoders, 1)  # (F, L - n, d)
        store({f"W_dec_{n}": decoder}, folder / f"W_dec_{n}.safetensors")


def gemma_scope_1(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        for l0, factor in ((30 + number, 1.0), (90, 2.0)):
            path = folder / f"layer_{number}/width_20/average_l0_{l0}/params.npz"
            path.parent.mkdir(parents=True)
            np.savez(
                path,
                W_enc=layer.encoder.T.numpy() * factor,  # (d, F)
                W_dec=layer.decoders[0].numpy(),
                b_enc=layer.encoder_bias.numpy(),
                b_dec=layer.decoder_bias.numpy(),
                threshold=threshold(layer).numpy(),
            )


def gemma_scope_2_tensors(layer: Transcoder, decoder: Tensor) -> dict[str, Tensor]:
    tensors = {
        "w_enc": layer.encoder.T,  # (d, F)
        "w_dec": decoder,
        "b_enc": layer.encoder_bias,
        "b_dec": layer.decoder_bias,
        "threshold": threshold(layer),
    }
    if layer.skip is not None:
        tensors["affine_skip_connection"] = layer.skip.T  # (d_in, d_out), used as x @ affine
    return tensors


def gemma_scope_2(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        inside = folder / f"layer_{number}_width_20_l0_small"
        store(gemma_scope_2_tensors(layer, layer.decoders[0]), inside / "params.safetensors")
        config = {
            "hf_hook_point_in": f"model.layers.{number}.pre_feedforward_layernorm.output",
            "hf_hook_point_out": f"model.layers.{number}.post_feedforward_layernorm.output",
            "width": 20,
            "architecture": "jump_relu",
            "l0": 10,
            "affine_connection": layer.skip is not None,
            "type": "transcoder",
        }
        as_json(config, inside / "config.json")


def gemma_scope_2_cross_layer(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        shape = (layer.d_dict, len(made.layers), layer.encoder.shape[1])
        decoder = torch.full(shape, 7.0, dtype=torch.float64)  # what lies below means nothing
        decoder[:, number:] = torch.stack(layer.decoders, 1)  # absolute written layer
        tensors = gemma_scope_2_tensors(layer, decoder)
        store(tensors, folder / f"params_layer_{number}.safetensors")
    as_json({"type": "clt", "width": 60}, folder / "config.json")


def saelens(made: TranscoderSet, folder: Path, version: int = 6) -> None:
    for number, layer in enumerate(made.layers):
        tensors = {
            "W_enc": layer.encoder.T,  # (d_in, F)
            "W_dec": layer.decoders[0],
            "b_enc": layer.encoder_bias,
            "b_dec": layer.decoder_bias,
            "threshold": threshold(layer),
        }
        if layer.skip is not None:
            tensors["W_skip"] = layer.skip  # (d_out, d_in)
        inside = folder / f"blocks.{number}"
        store(tensors, inside / "sae_weights.safetensors")
        hooks = {
            "hook_name": f"blocks.{number}.mlp.hook_in",
            "hook_name_out": f"blocks.{number}.hook_mlp_out",
        }
        kind = "jumprelu_skip_transcoder" if layer.skip is not None else "jumprelu_transcoder"
        config = {"architecture": kind, "normalize_activations": "none", "d_in": 16}
        told = {**config, **hooks} if version == 5 else {**config, "metadata": hooks}
        as_json(told, inside / "cfg.json")


def saelens_5(made: TranscoderSet, folder: Path) -> None:
    saelens(made, folder, version=5)


def sparsify(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        tensors = {
            "encoder.weight": layer.encoder,
            "encoder.bias": layer.encoder_bias,
            "W_dec": layer.decoders[0],
            "b_dec": layer.decoder_bias,
        }
        if layer.skip is not None:
            tensors["W_skip"] = layer.skip
        inside = folder / f"layers.{number}.mlp"
        store(tensors, inside / "sae.safetensors")
        as_json({"k": 5, "activation": "topk", "transcode": True, "extra": 1}, inside / "cfg.json")


def clt_training(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        tensors = {
            "encoder.weight": layer.encoder,
            "encoder.bias": layer.encoder_bias,
            "W_dec": layer.decoders[0],
            "b_dec": torch.zeros(16).double(),
        }
        for j, rows in enumerate(layer.decoders):
            tensors[f"W_decs.{j}"] = rows
            # The biases of all sources add up to the one that counts.
            share = made.layers[number + j].decoder_bias / (number + j + 1)
            tensors[f"b_decs.{j}"] = share
            if layer.skip is not None:
                tensors[f"W_skips.{j}"] = (layer.skip, *layer.higher_skips)[j]
        inside = folder / f"layers.{number}.mlp"
        store(tensors, inside / "sae.safetensors")
        config = {"k": 5, "transcode": True, "n_targets": len(layer.decoders)}
        as_json(config, inside / "cfg.json")


def openmoss(made: TranscoderSet, folder: Path) -> None:
    for number, layer in enumerate(made.layers):
        inside = folder / f"layer{number}_transcoder_8x_k64"
        tensors = {
            "W_E": layer.encoder.T,  # (d, F)
            "b_E": layer.encoder_bias,
            "W_D": layer.decoders[0],
            "b_D": layer.decoder_bias,
            "activation_function.log_jumprelu_threshold": threshold(layer).log(),
        }
        store(tensors, inside / "sae_weights.safetensors")
        config = {
            "sae_type": "sae",
            "act_fn": "jumprelu",
            "norm_activation": "inference",
            "hook_point_in": f"blocks.{number}.ln2.hook_normalized",
            "hook_point_out": f"blocks.{number}.hook_mlp_out",
        }
        as_json(config, inside / "config.json")


def openmoss_cross_layer(made: TranscoderSet, folder: Path) -> None:
    layers = made.layers
    tensors = {
        "W_E": torch.stack([layer.encoder.T for layer in layers]),  # (L, d, F)
        "b_E": torch.stack([layer.encoder_bias for layer in layers]),
        "activation_function.log_jumprelu_threshold": torch.stack(
            [threshold(layer).log() for layer in layers]
        ),
    }
    for m, layer in enumerate(layers):
        blocks = [layers[source].decoders[m - source] for source in range(m + 1)]
        tensors[f"W_D.{m}"] = torch.stack(blocks)  # (m + 1, F, d)
        tensors[f"b_D.{m}"] = layer.decoder_bias
    store(tensors, folder / "sae_weights.safetensors")
    config = {
        "sae_type": "clt",
        "act_fn": "jumprelu",
        "hook_points_in": [f"blocks.{n}.ln2.hook_normalized" for n in range(len(layers))],
        "hook_points_out": [f"blocks.{n}.hook_mlp_out" for n in range(len(layers))],
    }
    as_json(config, folder / "config.json")


def older_sweep(made: TranscoderSet, folder: Path) -> None:
    for n, layer in enumerate(made.layers):
        encoder = {"W_enc": layer.encoder, "b_enc": layer.encoder_bias}
        store(encoder, folder / f"encoder_layer_{n}.safetensors")
        decoder = {
            f"W_dec_from_{source}": made.layers[source].decoders[n - source].T  # (d, F)
            for source in range(n + 1)
        }
        decoder["b_dec"] = layer.decoder_bias
        store(decoder, folder / f"decoder_layer_{n}.safetensors")


def joint_top_k(made: TranscoderSet, folder: Path) -> None:
    for n, layer in enumerate(made.layers):
        store({f"W_enc_{n}": layer.encoder}, folder / f"W_enc_{n}.safetensors")
        decoder = torch.stack(layer.decoders, 1)
        norm = decoder.flatten(1).norm(dim=1)
        tensors = {f"W_dec_{n}": decoder, f"W_dec_norm_{n}": norm}
        store(tensors, folder / f"W_dec_{n}.safetensors")
    as_json({"d_feature": 20, "k": 2}, folder / "config.json")
