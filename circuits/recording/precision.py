"""How the float32 products of a sweep are made."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """From the most exact to the fastest (see `circuits.recording.attention`)."""

    IEEE = "ieee"  # in float32
    SPLIT = "3xtf32"  # in tensor cores, split so that they are as exact
    TF32 = "tf32"  # in tensor cores
