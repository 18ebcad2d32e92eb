"""Model files: checks of a folder before transformers loads it.

transformers would wait forever on a pipe, and would fill every layer that a config declares beyond
the weights with random numbers, so that a config of a few hundred bytes could exhaust memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from circuits.model.packaged import ModelNotFound
from graphs.core.provenance import MOST_LAYERS
from graphs.disk.files import json_value

LARGEST_CONFIG = 2**24  # bytes
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
PER_BYTE = 2  # parameters per byte of weights at most


def require_sound_files(folder: Path) -> None:
    """Raises ModelNotFound for special files and for a config larger than the weights."""
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelNotFound(f"{path} is not a regular file: remove it, or give another folder.")
    path = folder / "config.json"
    if not path.is_file():
        return  # transformers reports what is wrong
    if path.stat().st_size > LARGEST_CONFIG:
        raise ModelNotFound(
            f"{path} is too large for a config: expected at most {LARGEST_CONFIG:,} bytes."
        )
    try:
        config = json_value(path.read_bytes())
    except ValueError:
        return  # as above
    _require_few_layers(path, config)
    stored, least = _weight_bytes(folder), _least_parameters(folder)
    if stored and least > PER_BYTE * stored:
        raise ModelNotFound(
            f"{path} declares a model of at least {least:,} parameters, but its weights have "
            f"{stored:,} bytes: download both again."
        )


def _require_few_layers(path: Path, config: Any) -> None:
    """Raises ModelNotFound for too many layers, at any depth of a config."""
    for key, value in config.items() if isinstance(config, dict) else ():
        if key in LAYERS and isinstance(value, int) and value > MOST_LAYERS:
            raise ModelNotFound(
                f"{path} declares {value:,} layers: at most {MOST_LAYERS:,} are supported."
            )
        _require_few_layers(path, value)


def _weight_bytes(folder: Path) -> int:
    """Bytes of all weights; 0 if a file is damaged or there is none, which transformers reports."""
    safetensors = [
        path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_")
    ]
    try:
        for path in safetensors:
            with safe_open(path, "pt"):
                pass
    except (SafetensorError, OSError):
        return 0
    return sum(path.stat().st_size for path in (*safetensors, *folder.glob("*.bin")))


def _least_parameters(folder: Path) -> int:
    """A lower bound on parameters: the embedding, and per layer the queries and an MLP matrix.

    0 for an invalid config, which transformers reports better.
    """
    try:
        whole = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config: PreTrainedConfig = whole.get_text_config()
        width, heads = config.hidden_size, config.num_attention_heads
        inner = getattr(config, "intermediate_size", None) or width
        queries = heads * (getattr(config, "head_dim", None) or width // heads)
        return config.vocab_size * width + config.num_hidden_layers * width * (queries + inner)
    except Exception:  # transformers raises nearly every class
        return 0
