"""Labels: short texts at markers, placed without overlaps.

Units are pixels from the lower left corner of the plot.  A text next to its marker gets the first
of eight places at which it covers no marker and no other text, or is left out; texts above a row of
markers are slanted, and of two that would touch the weaker is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, radians, sin

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from viz.text.words import letters

LETTERS = 11.0  # size of the type
_SLANTS = (45.0, 60.0, 75.0)  # degrees; steeper for closer markers
_LINE = 14.0  # height of a text
_AWAY = 2.0  # between a marker and its text
_SIDES = ((0, 1), (1, 0), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))  # right, up

Box = tuple[float, float, float, float]  # left, bottom, right, top


@dataclass(frozen=True)
class Marker:
    """Marker of a label."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Label:
    """A text, its centre, and its slope to the right in degrees."""

    text: str
    x: float
    y: float
    angle: float = 0.0


def text_width(text: str, size: float = LETTERS) -> float:
    """Approximate width of a text in a sans serif font."""
    return 0.57 * size * letters(text)


def labels_beside(
    wanted: list[tuple[Marker, str]], markers: Float[ndarray, "marker 4"], area: Box
) -> list[Label]:
    """Labels that fit, in order of priority; `markers` are boxes."""
    taken, labels = markers, list[Label]()
    for marker, text in wanted:
        width = text_width(text) + 4
        for right, up in _SIDES:
            away = (marker.radius + _AWAY) / (1 if right == 0 or up == 0 else hypot(1, 1))
            x = marker.x + right * (away + width / 2)
            y = marker.y + up * (away + _LINE / 2)
            box = (x - width / 2, y - _LINE / 2, x + width / 2, y + _LINE / 2)
            if is_free(box, taken, area):
                taken = np.vstack([taken, box])
                labels.append(Label(text, x, y))
                break
    return labels


def labels_above(wanted: list[tuple[Marker, str]], area: Box) -> list[Label]:
    """Labels above a row of markers: horizontal for a single one, else slanted to the right."""
    if len(wanted) == 1:
        ((marker, text),) = wanted
        half = text_width(text) / 2
        x = max(area[0] + half, min(marker.x, area[2] - half))
        return [Label(text, x, marker.y + marker.radius + _AWAY + _LINE / 2)]
    starts = np.array([marker.x for marker, _ in wanted])
    gap = np.diff(np.unique(starts)).min(initial=np.inf)
    slant = next((a for a in _SLANTS if gap * sin(radians(a)) >= LETTERS), _SLANTS[-1])
    across, up = cos(radians(slant)), sin(radians(slant))
    labels, used = list[Label](), list[float]()
    for marker, text in wanted:
        if all(abs(marker.x - x) * up >= LETTERS for x in used):
            used.append(marker.x)
            middle = marker.radius + _AWAY + text_width(text) / 2
            labels.append(Label(text, marker.x + middle * across, marker.y + middle * up, slant))
    return labels


def highest(labels: list[Label]) -> float:
    """Upper end of the highest label; 0 without labels."""
    return max((label.y + _rise(label) for label in labels), default=0.0)


def is_free(box: Box, taken: Float[ndarray, "box 4"], area: Box) -> bool:
    """Whether a box lies in the area and overlaps no occupied box.

    >>> taken, area = np.array([[3.0, 0.0, 4.0, 1.0]]), (0.0, 0.0, 9.0, 9.0)
    >>> is_free((0.0, 0.0, 3.0, 1.0), taken, area), is_free((0.0, 0.0, 4.0, 1.0), taken, area)
    (True, False)
    """
    inside = box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]
    left, bottom, right, top = taken.T
    apart = (left >= box[2]) | (right <= box[0]) | (bottom >= box[3]) | (top <= box[1])
    return inside and bool(apart.all())


def _rise(label: Label) -> float:
    """Height of a label's upper end above its centre."""
    angle = radians(label.angle)
    return (text_width(label.text) * sin(angle) + _LINE * cos(angle)) / 2
