"""Model files: a folder is looked at before transformers, which believes whatever stands in it.

A pipe would keep it waiting, and a config of a few hundred bytes may ask for more or wider layers
than any memory holds: what the weights lack is made up of random numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedConfig

from circuits.model.packaged import ModelNotFound
from graphs.core.provenance import MOST_LAYERS
from graphs.disk.bounded import json_value

LARGEST_CONFIG = 2**24  # bytes
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
PER_BYTE = 2  # numbers that a byte holds at most


def require_sound_files(folder: Path) -> None:
    """Raises ModelNotFound for what is no file, and for a config that the weights cannot fill."""
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelNotFound(f"{path} is not a file: remove it, or give another folder.")
    path = folder / "config.json"
    if not path.is_file():
        return  # what is wrong transformers says
    if path.stat().st_size > LARGEST_CONFIG:
        raise ModelNotFound(f"{path} is no config: it has more than {LARGEST_CONFIG:,} bytes.")
    try:
        told = json_value(path.read_bytes())
    except ValueError:
        return  # as above
    _require_layers(path, told)
    stored, least = _stored(folder), _least(folder)
    if stored and least > PER_BYTE * stored:
        raise ModelNotFound(
            f"{path} tells of a model of {least:,} numbers or more, and its weights have "
            f"{stored:,} bytes: get both from where the model is from."
        )


def _require_layers(path: Path, told: Any) -> None:
    """Raises ModelNotFound for more layers, at any depth of a config, than are read."""
    for key, value in told.items() if isinstance(told, dict) else ():
        if key in LAYERS and isinstance(value, int) and value > MOST_LAYERS:
            raise ModelNotFound(
                f"{path} tells of {value:,} layers: models of up to {MOST_LAYERS:,} are read."
            )
        _require_layers(path, value)


def _stored(folder: Path) -> int:
    """Bytes of all weights; 0 if there are none or one is not whole, which transformers says."""
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


def _least(folder: Path) -> int:
    """Numbers that a model has at least: its embedding, and of each layer queries and an MLP.

    0 for a config that makes no sense, which transformers says better.
    """
    try:
        told = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config: PreTrainedConfig = told.get_text_config()
        width, heads = config.hidden_size, config.num_attention_heads
        inner = getattr(config, "intermediate_size", None) or width
        queries = heads * (getattr(config, "head_dim", None) or width // heads)
        return config.vocab_size * width + config.num_hidden_layers * width * (queries + inner)
    except Exception:  # transformers raises nearly every class
        return 0
