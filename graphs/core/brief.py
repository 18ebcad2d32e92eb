"""Brief representations: what a value is, not all that it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from enum import Enum
from typing import Any, cast

LONGEST, MOST_ITEMS = 60, 4  # characters of a text, and items of a collection, that are shown


class Brief:
    """A dataclass whose representation is one line, whatever it holds.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> @dataclass(repr=False)
    ... class Rows(Brief):
    ...     layer: int
    ...     weights: np.ndarray
    >>> Rows(3, np.zeros((734, 2)))
    Rows(layer=3, weights=float64[734, 2])
    """

    def __repr__(self) -> str:
        shown = [(one.name, getattr(self, one.name)) for one in fields(self) if one.repr]  # pyright: ignore
        return one_line(type(self).__name__, shown)


def one_line(name: str, values: Iterable[tuple[str, Any]]) -> str:
    """The representation of a value with these parts."""
    return f"{name}({', '.join(f'{key}={brief(value)}' for key, value in values)})"


def brief(value: Any) -> str:
    """A value in a few words: numbers and short texts as they are, of all else kind and size."""
    if value is None or isinstance(value, bool | int | float | Enum):
        return str(value) if isinstance(value, Enum) else repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…")
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kept = f", {value.nnz} kept" if hasattr(value, "nnz") else ""
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{dtype}[{', '.join(map(str, value.shape))}{kept}]"
    if isinstance(value, Mapping | Set | list | tuple):
        return _collection(cast(Collection[Any], value))
    return f"<{type(value).__name__}>"


def _collection(values: Collection[Any]) -> str:
    few = isinstance(values, Sequence) and len(values) <= MOST_ITEMS
    if few and all(isinstance(one, bool | int | float | str) for one in values):
        return f"({', '.join(map(brief, values))})"
    return f"<{len(values)} items>" if values else "()"
