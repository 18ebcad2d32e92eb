"""Types of numbers in which a model can be traced."""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """By torch's names."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BFLOAT16 = "bfloat16"
