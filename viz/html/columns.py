"""Columns: data of a page as bytes, JSON with arrays of numbers behind it.

    JSON in UTF-8, a zero byte, the bytes of all arrays

In the JSON an array is [type, first byte, number of entries], with bytes counted from the first
array on.  Of an array come the first bytes of all its little-endian entries, then all second ones
and so on: bytes of one significance are alike, and compress better next to each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy import ndarray

_TYPES = {"f8": "f64", "f4": "f32", "i4": "i32", "u2": "u16", "u1": "u8"}
_OF_NUMPY = {name: numpy for numpy, name in _TYPES.items()}
_END = b"\0"  # of the JSON, which has no control characters


def columns(**named_columns: ndarray) -> dict[str, Any]:
    """Columns of a page by name; raises ValueError for a type that the page does not read."""
    for name, column in named_columns.items():
        if column.dtype.str[1:] not in _TYPES:
            raise ValueError(f"Column {name} is {column.dtype}: expected {', '.join(_TYPES)}.")
    return named_columns


def as_bytes(data: object) -> bytes:
    """JSON-like data with columns in it; raises ValueError for nan and infinity outside columns."""
    pieces: list[bytes] = []
    size = 0

    def place(column: object) -> list[Any]:
        nonlocal size
        if not isinstance(column, ndarray):
            raise TypeError(f"{type(column).__name__} is not data of a page.")
        entry, content = _planes(cast(ndarray, column), size)
        pieces.append(content)
        size += len(content)
        return entry

    text = json.dumps(
        data, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=place
    )
    return b"".join((text.encode(), _END, *pieces))


def _planes(column: ndarray, first: int) -> tuple[list[Any], bytes]:
    """The entry of a column in the JSON, and its bytes, the first of all entries first."""
    flat = column.ravel().astype(column.dtype.newbyteorder("<"))
    planes = np.frombuffer(flat.tobytes(), np.uint8).reshape(-1, flat.itemsize).T
    return [_TYPES[column.dtype.str[1:]], first, flat.size], planes.tobytes()


def from_bytes(content: bytes) -> Any:
    """The data that `as_bytes` wrote, with arrays of numpy as columns."""
    text, _, held = content.partition(_END)

    def restored(value: object) -> object:
        if isinstance(value, Mapping):
            return {name: restored(one) for name, one in cast(Mapping[str, object], value).items()}
        if not isinstance(value, list):
            return value
        entries = cast(list[Any], value)
        kind, first = (*entries, None, None)[:2]
        if isinstance(kind, str) and isinstance(first, int):  # lists of texts have texts only
            return _column(held, *entries)
        return [restored(one) for one in entries]

    return restored(json.loads(text))


def _column(held: bytes, kind: str, first: int, count: int) -> ndarray:
    dtype = np.dtype(f"<{_OF_NUMPY[kind]}")
    planes = np.frombuffer(held, np.uint8, count * dtype.itemsize, first)
    return np.ascontiguousarray(planes.reshape(dtype.itemsize, count).T).view(dtype).ravel()
