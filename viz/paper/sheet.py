"""Sheets: the measures of a figure on paper, and text set into lines of a given width.

Lengths are points of 1/72 inch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Measure = Callable[[str, float], float]  # width of a text in a size of type

_INCH = 25.4  # millimetres


@dataclass(frozen=True)
class Sheet:
    """The width of a figure, and sizes of its type."""

    width: float
    name: float  # names of boxes
    small: float  # tokens, shares, legend and caption
    gap: float  # between two rows of boxes
    apart: float  # between two boxes of a row

    @property
    def longest(self) -> float:
        """Width of a line of a name, at most."""
        return 0.28 * self.width if self.width < 300 else 0.19 * self.width


# Of a column and of a page of most journals and conferences; they ask for at least 6 or 7 points.
COLUMN = Sheet(85 / _INCH * 72, 7.0, 6.0, 28.0, 9.0)
PAGE = Sheet(174 / _INCH * 72, 9.0, 7.5, 36.0, 22.0)
LEADING = 1.2  # height of a line over the size of its type


def in_lines(text: str, width: float, size: float, measure: Measure, most: int) -> list[str]:
    """A text in lines of at most this width, broken at blanks; what is left over is cut off.

    >>> in_lines("say a capital", 50.0, 7.0, lambda text, size: 0.5 * size * len(text), 2)
    ['say a capital']
    >>> in_lines("from Eiffel, early", 50.0, 7.0, lambda text, size: 0.5 * size * len(text), 2)
    ['from Eiffel,', 'early']
    """
    lines: list[str] = []
    words = text.split(" ")
    while words:
        line = words.pop(0)
        while words and measure(f"{line} {words[0]}", size) <= width:
            line = f"{line} {words.pop(0)}"
        is_last = len(lines) == most - 1
        if is_last and words:
            line = " ".join((line, *words))
            words = []
        lines.append(cut(line, width, size, measure))
    return lines


def cut(text: str, width: float, size: float, measure: Measure) -> str:
    """A text of at most this width, with an ellipsis if it was longer."""
    if measure(text, size) <= width:
        return text
    while text and measure(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
