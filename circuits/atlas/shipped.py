"""Paths of what ships inside the package: the atlas models and their dictionaries."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

ATLAS = ("atlas-large", "atlas-small")
DEFAULT_MODEL = ATLAS[0]  # where none is given
WEIGHTS = Path(__file__).with_name("weights")


def atlas_model(name: str) -> tuple[Path, str]:
    """Folder of an atlas model, as save_pretrained writes it, and its version."""
    return WEIGHTS / name, version("headwater")


def atlas_transcoders(name: str) -> Path:
    """Folder of the cross-layer transcoders of an atlas model."""
    return WEIGHTS / name / "transcoders"


def atlas_words(name: str) -> list[str]:
    """All words that an atlas model knows, names of several words as one."""
    folder, _ = atlas_model(name)
    read = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"] for token in read["added_tokens"]}
    return sorted(read["model"]["vocab"].keys() - special)
