"""Files in numpy's .npy format, read only if the header agrees with the size of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.lib import format as npy

from graphs.disk.files import regular_file

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Form:
    """The header of an array: type, shape and order of the numbers after it."""

    dtype: np.dtype
    shape: tuple[int, ...]
    by_column: bool  # Fortran order
    start: int  # bytes before the first number

    @property
    def size(self) -> int:
        """Bytes of all numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def form_of(file: Any, size: int) -> Form:
    """Read the header of an open .npy file of `size` bytes.

    Raises ValueError unless plain numbers follow that fill the file.
    """
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"it has version {version} of numpy's format, expected 1.0 or 2.0")
    shape, by_column, dtype = _HEADERS[version](file)
    form = Form(dtype, shape, by_column, file.tell())
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if min(shape, default=0) < 0 or form.start + form.size != size:
        raise ValueError(f"its header declares {form.size:,} bytes, it has {size - form.start:,}")
    return form


def read_vector(path: Path | str) -> Float[ndarray, " _dim"]:
    """The vector of real numbers in a .npy file.

    Raises GraphFileError if there is no such file, OSError or ValueError for other content.
    """
    with regular_file(path).open("rb") as file:
        form = form_of(file, regular_file(path).stat().st_size)
        if form.dtype.kind not in "fiu" or len(form.shape) != 1:
            raise ValueError(
                f"expected a vector of real numbers, got shape {form.shape} of {form.dtype}"
            )
        return np.frombuffer(file.read(form.size), form.dtype).astype(np.float64)
