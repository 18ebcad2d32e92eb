"""Paths of what ships inside the package: the atlas models and their dictionaries."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

ATLAS = ("atlas-large", "atlas-small")
WEIGHTS = Path(__file__).with_name("weights")


def atlas_model(name: str) -> tuple[Path, str]:
    """Folder of an atlas model, as save_pretrained writes it, and its version."""
    return WEIGHTS / name, version("headwater")


def atlas_transcoders(name: str) -> Path:
    """Folder of the cross-layer transcoders of an atlas model."""
    return WEIGHTS / name / "transcoders"
