"""Shares: the percentage beside an arrow, where there is room for it.

A label stands on its arrow, or else beside it, on a white plate that touches no box, no other label
and no other arrow.  Strong arrows choose first; an arrow without room has no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, dist

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from viz.paper.curves import Point, Rect, Route, sampled
from viz.paper.routes import HEAD

AWAY = 1.0  # between a label and anything else
_APART = 4.0  # between a label beside its arrow and other arrows: its own is the nearest
_STEP = 1.0  # between two points of an arrow, about
_EVERY = 3  # points between places that are tried
_FREE = 1.0  # of an arrow below its label, and above it below the head


def share_text(share: float) -> str:
    """A share in whole percent."""
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def share_places(
    routes: Sequence[Route],
    widths: Sequence[float],  # of arrows
    plates: Sequence[tuple[float, float]],  # width and height of labels; in the order of strength
    boxes: Sequence[Rect],
    inside: Rect,
) -> list[Point | None]:
    """The middle of each arrow's label, None without room; wide arrows choose first."""
    lines = [_dense(route) for route in routes]
    drawn = [_around(line, width / 2) for line, width in zip(lines, widths, strict=True)]
    taken = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    found: list[Point | None] = [None] * len(routes)
    for number in sorted(range(len(routes)), key=lambda n: (-widths[n], n)):
        plate = np.array(plates[number])
        others = np.concatenate([np.zeros((0, 4)), *drawn[:number], *drawn[number + 1 :]])
        along = _along(lines[number], plate[1] / 2 + _FREE)
        aside = np.array([(plate[0] + widths[number]) / 2 + AWAY, 0.0])
        beside = np.stack([along - aside, along + aside], axis=1).reshape(-1, 2)
        for middles, arrows in (
            (along, _around(others, AWAY)),
            (beside, np.concatenate([_around(others, _APART), drawn[number]])),
        ):
            rects = _around(middles, plate / 2)
            free = _lie_in(rects, inside)
            free &= ~_touch(rects, np.concatenate([arrows, _around(taken, AWAY)]))
            if np.any(free):
                best = int(free.argmax())
                x, y = middles[best].tolist()
                found[number] = (x, y)
                taken = np.concatenate([taken, rects[best : best + 1]])
                break
    return found


def _dense(route: Route) -> Float[ndarray, "point 2"]:
    """Points of a route, of which no two neighbours are far from each other."""
    points = [route[0]]
    for piece in range(0, len(route) - 1, 3):
        part = route[piece : piece + 4]
        length = sum(dist(one, other) for one, other in pairwise(part))
        points += sampled(part, max(2, ceil(length / _STEP)))[1:]
    return np.array(points)


def _along(points: Float[ndarray, "point 2"], free: float) -> Float[ndarray, "some 2"]:
    """Some points of an arrow, those in its middle first; as much is left free at both ends."""
    low, high = points[0, 1] + free, points[-1, 1] - HEAD - free
    body = points[(low <= points[:, 1]) & (points[:, 1] <= high)]
    places = np.arange(0, len(body), _EVERY)
    return body[places[np.argsort(np.abs(places - (len(body) - 1) / 2), kind="stable")]]


def _around(
    shapes: Float[ndarray, "shape _coordinates"], away: float | Float[ndarray, " 2"]
) -> Float[ndarray, "shape 4"]:
    """Rectangles (left, bottom, right, top) so far around points, or around rectangles."""
    return np.concatenate([shapes[:, :2] - away, shapes[:, -2:] + away], axis=1)


def _lie_in(rects: Float[ndarray, "rect 4"], inside: Rect) -> Bool[ndarray, " rect"]:
    left, bottom, right, top = rects.T
    across = (left >= inside[0]) & (right <= inside[2])
    return across & (bottom >= inside[1]) & (top <= inside[3])


def _touch(
    rects: Float[ndarray, "rect 4"], others: Float[ndarray, "other 4"]
) -> Bool[ndarray, " rect"]:
    """Which rectangles overlap any of the others."""
    across = (rects[:, None, 0] < others[:, 2]) & (others[:, 0] < rects[:, None, 2])
    up = (rects[:, None, 1] < others[:, 3]) & (others[:, 1] < rects[:, None, 3])
    return np.any(across & up, axis=1)
