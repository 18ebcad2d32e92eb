"""Columns: arrays of numbers in a page's JSON, as base64 of little-endian bytes."""

from __future__ import annotations

import base64
from typing import Any

from numpy import ndarray

_TYPES = {"f8": "f64", "f4": "f32", "i4": "i32", "u2": "u16", "u1": "u8"}


def columns(**named_columns: ndarray) -> dict[str, Any]:
    """Columns as {name: [type, base64]}."""
    return {
        name: [
            _TYPES[column.dtype.str[1:]],
            base64.b64encode(column.astype(column.dtype.newbyteorder("<")).tobytes()).decode(),
        ]
        for name, column in named_columns.items()
    }
