"""A dictionary and a model in files that circuit-tracer reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import yaml
from random_dictionary import Kind
from safetensors.torch import save_file

from circuits.features.transcoder import JumpReLU
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.packaged import converted_folder
from circuits.model.subject import Subject

CONFIGS = ("config.json", "tokenizer_config.json")
MODELS = {"gemma-3-270m": "google/gemma-3-270m", "smollm2-135m": "HuggingFaceTB/SmolLM2-135M"}


def write_dictionary(made: TranscoderSet, kind: Kind, folder: Path) -> None:
    """A set in circuit-tracer's files."""
    cross = kind == "cross-layer"
    config = {
        "model_kind": "cross_layer_transcoder" if cross else "transcoder_set",
        "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out",
        "scan": "random",
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for n, layer in enumerate(made.layers):
        assert isinstance(layer.nonlinearity, JumpReLU)
        threshold = layer.nonlinearity.threshold.contiguous()
        if cross:
            encoder = {
                f"W_enc_{n}": layer.encoder,
                f"b_enc_{n}": layer.encoder_bias,
                f"b_dec_{n}": layer.decoder_bias,
                f"threshold_{n}": threshold,
            }
            save_file(encoder, folder / f"W_enc_{n}.safetensors")
            decoder = torch.stack(layer.decoders, 1)
            save_file({f"W_dec_{n}": decoder}, folder / f"W_dec_{n}.safetensors")
            continue
        tensors = {
            "W_enc": layer.encoder,
            "W_dec": layer.decoders[0],
            "b_enc": layer.encoder_bias,
            "b_dec": layer.decoder_bias,
            "activation_function.threshold": threshold,
        }
        if layer.skip is not None:
            tensors["W_skip"] = layer.skip
        save_file(tensors, folder / f"layer_{n}.safetensors")


def write_model(model: str, folder: Path) -> float:
    """The model's files with a config that transformers 4 reads; the base of its RoPE."""
    source, place = converted_folder(model)[0], folder / MODELS[model]
    place.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name not in CONFIGS:
            (place / file.name).unlink(missing_ok=True)
            (place / file.name).symlink_to(file)
    return _write_configs(source, place)


def write_random_model(subject: Subject, folder: Path) -> str:
    """The same of a model with random weights; its name, which is a folder."""
    name = "random/gemma-3"
    place = folder / name
    subject.frozen.model.save_pretrained(place)
    subject.tokenizer.save_pretrained(place)
    _write_configs(place, place)
    return name


def _write_configs(source: Path, place: Path) -> float:
    """Configs that transformers 4 reads, from those of transformers 5; the base of the RoPE."""
    config, words = (json.loads((source / name).read_text(encoding="utf-8")) for name in CONFIGS)
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.get("full_attention", rope)["rope_theta"]
    if "sliding_attention" in rope:
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
    (place / CONFIGS[0]).write_text(json.dumps(config), encoding="utf-8")
    words["tokenizer_class"] = "PreTrainedTokenizerFast"
    (place / CONFIGS[1]).write_text(json.dumps(words), encoding="utf-8")
    return config["rope_theta"]
