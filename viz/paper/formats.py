"""Formats and widths of figures, and what is wrong with a figure that cannot be made."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from graphs.errors import HeadwaterError
from viz.text.words import quoted

FORMATS = ("svg", "pdf", "png")


class FigureError(HeadwaterError):
    """A figure that cannot be made; the message says what was expected."""


class Width(StrEnum):
    """How wide a figure is."""

    COLUMN = "column"  # 85 mm
    PAGE = "page"  # 174 mm


def figure_format(path: Path | str) -> str:
    """The format that the suffix of a file asks for.  Raises FigureError for any other."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = ", ".join(f".{one}" for one in FORMATS)
        name = quoted(Path(path).name)
        raise FigureError(f"{name} has none of the suffixes of figures: {known}.")
    return suffix


def figure_width(width: str) -> Width:
    """The width of this name.  Raises FigureError for any other."""
    if width not in [*Width]:
        raise FigureError(f"A figure is as wide as a {' or a '.join(Width)}, got {width!r}.")
    return Width(width)
