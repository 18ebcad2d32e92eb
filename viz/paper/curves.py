"""Curves: the way of one arrow from a point to a point above it, clear of boxes.

An arrow is one cubic curve if one keeps away from all boxes; of several the one that is even and
runs along no other arrow.  Else boxes in between make bands: the arrow crosses a band on a vertical
lane beside its boxes, and bends as far from lane to lane as is clear.  Curves never go down.

Lengths are points of 1/72 inch, y grows upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, dist

Point = tuple[float, float]
Rect = tuple[float, float, float, float]  # left, bottom, right, top
Route = tuple[Point, ...]  # the start, then two handles and an end of each cubic piece

BESIDE = 3.5  # between an arrow and a box, and between two arrows on lanes
_SAMPLES = 20  # of each piece of a curve
_FINE = 4.0  # between two samples, about, where boxes are near
# How far the handles of a curve reach, as parts of its height: the most even first.
_HANDLES = sorted(
    ((a / 20, b / 20) for a in range(4, 20, 3) for b in range(4, 20, 3)),
    key=lambda pair: (abs(pair[0] - 0.5) + abs(pair[1] - 0.5), pair),
)
_TRIED = 8  # curves of which the best is taken
_CROWDED = 0.12  # of an arrow, that may run along others
_NEAR = 2.0  # between two arrows that run along each other
_SQUARE = 8.0  # side, at least as wide as arrows with what is near to them
_STEEP = 10.0  # points to the side, in a band, up to which an arrow passes it upwards
_LEAST_BAND = 1.0  # of a box above the start and below the end, to be in between


@dataclass(frozen=True)
class _Lane:
    """Where an arrow crosses a band."""

    x: float
    bottom: float
    top: float


def way(
    start: Point, end: Point, others: Sequence[Rect], width: float, drawn: Drawn, inside: Rect
) -> Route:
    """From start to end without the start, clear of these boxes, and of arrows as far as can be."""
    direct = _bend(start, end, others, width, drawn)
    if direct is not None and drawn.crowded(sampled((start, *direct)), width) <= _CROWDED:
        return direct
    lanes = _lanes(start, end, others, width, drawn, inside)
    along = _along(start, lanes, end, others, width, drawn)
    if direct is None:
        return along
    one, other = (drawn.crowded(sampled((start, *piece)), width) for piece in (direct, along))
    return along if other + _CROWDED < one else direct


class Drawn:
    """Points of the arrows so far, by squares of the plane in which they are."""

    def __init__(self) -> None:
        self._points: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
        self._arrows: list[tuple[Sequence[Point], float]] = []

    def add(self, points: Sequence[Point], width: float) -> None:
        """Note an arrow."""
        self._arrows.append((points, width))
        for x, y in points:
            self._points.setdefault((int(x // _SQUARE), int(y // _SQUARE)), []).append(
                (x, y, width / 2)
            )

    def in_band(self, bottom: float, top: float, apart: float) -> list[tuple[float, float]]:
        """Where arrows pass a band upwards, with room beside them; steep ones only."""
        found: list[tuple[float, float]] = []
        for points, width in self._arrows:
            inside = [x for x, y in points if bottom <= y <= top]
            if inside and max(inside) - min(inside) < _STEEP:
                away = apart + width / 2
                found.append((min(inside) - away, max(inside) + away))
        return found

    def crowded(self, points: Sequence[Point], width: float) -> float:
        """Share of these points that are near to an arrow."""
        return sum(self._is_near(x, y, width / 2 + _NEAR) for x, y in points) / len(points)

    def _is_near(self, x: float, y: float, away: float) -> bool:
        column, row = int(x // _SQUARE), int(y // _SQUARE)
        for i in (column - 1, column, column + 1):
            for j in (row - 1, row, row + 1):
                for u, v, half in self._points.get((i, j), ()):
                    if abs(x - u) < away + half and abs(y - v) < away + half:
                        return True
        return False


def sampled(route: Route, count: int = _SAMPLES) -> list[Point]:
    """Points along a route, so many on each of its pieces."""
    points = [route[0]]
    for piece in range(0, len(route) - 1, 3):
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = route[piece : piece + 4]
        points += [
            (a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3)
            for a, b, c, d in _weights(count)
        ]
    return points


@cache
def _weights(count: int) -> list[tuple[float, float, float, float]]:
    """Weights of the four points of a cubic piece, at so many places along it."""
    along = [(step / count, 1 - step / count) for step in range(1, count + 1)]
    return [(u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t) for t, u in along]


def line(start: Point, end: Point) -> Route:
    """A straight piece without its start."""
    (x0, y0), (x1, y1) = start, end
    return (
        (x0 + (x1 - x0) / 3, y0 + (y1 - y0) / 3),
        (x1 - (x1 - x0) / 3, y1 - (y1 - y0) / 3),
        end,
    )


def _turn(start: Point, end: Point, low: float = 0.5, high: float = 0.5) -> Route:
    """A piece that leaves and arrives upwards, without its start."""
    up = max(end[1] - start[1], 1.0)
    return ((start[0], start[1] + low * up), (end[0], end[1] - high * up), end)


def _bend(
    start: Point, end: Point, others: Sequence[Rect], width: float, drawn: Drawn
) -> Route | None:
    """A piece from start to end that keeps away from these boxes, without its start.

    The most even one, unless another one runs less along arrows that are there already.
    """
    best, least, tried = None, float("inf"), 0
    count = max(_SAMPLES // 2, ceil(dist(start, end) / _FINE))
    for low, high in _HANDLES:
        piece = _turn(start, end, low, high)
        points = sampled((start, *piece), count)
        if _is_clear(points, others, width):
            uneven = abs(low - 0.5) + abs(high - 0.5)
            cost = uneven / 4 + drawn.crowded(points, width)
            if cost < least:
                best, least = piece, cost
            tried += 1
        if tried == _TRIED or start[0] == end[0]:
            break
    return best


def _along(
    start: Point,
    lanes: Sequence[_Lane],
    end: Point,
    others: Sequence[Rect],
    width: float,
    drawn: Drawn,
) -> Route:
    """From start to end by as few of these lanes as are needed, without the start."""
    path: list[Point] = []
    at, left = start, [*lanes]
    while left:
        goals = [end, *((lane.x, lane.top) for lane in left[::-1])]
        for skipped, goal in enumerate(goals):
            piece = _bend(at, goal, others, width, drawn)
            if piece is not None:
                path += piece
                left = left[len(left) - skipped + 1 :] if skipped else []
                break
        else:
            lane = left.pop(0)
            below = (lane.x, max(lane.bottom, at[1]))
            path += _turn(at, below) if below[1] > at[1] else ()
            path += line(below, (lane.x, lane.top))
        at = path[-1]
    return (*path, *(_turn(at, end) if at != end else ()))


def _is_clear(points: Sequence[Point], others: Sequence[Rect], width: float) -> bool:
    """Whether a curve keeps away from all of these boxes."""
    pad = BESIDE + width / 2
    low, high = points[0][1], points[-1][1]
    near = [box for box in others if _is_between(box, low, high)]
    return not any(
        box[0] - pad < x < box[2] + pad and box[1] - BESIDE < y < box[3] + BESIDE
        for x, y in points
        for box in near
    )


def _lanes(
    start: Point,
    end: Point,
    others: Sequence[Rect],
    width: float,
    drawn: Drawn,
    inside: Rect,
) -> list[_Lane]:
    """A lane through each band of boxes between start and end, near to the straight line."""
    found: list[_Lane] = []
    x, y = start
    for bottom, top, boxes in _bands(start[1], end[1], others):
        ideal = x + (end[0] - x) * ((bottom + top) / 2 - y) / max(1e-9, end[1] - y)
        apart = BESIDE + width / 2
        blocked = [(box[0] - apart, box[2] + apart) for box in boxes]
        used = drawn.in_band(bottom, top, apart)
        x = _free(ideal, [*blocked, *used], inside, _free(ideal, blocked, inside, ideal))
        # Beside the ends there is no room to bend.
        x = start[0] if bottom <= start[1] else end[0] if top >= end[1] else x
        y = top
        found.append(_Lane(x, bottom, top))
    return found


def _is_between(box: Rect, low: float, high: float) -> bool:
    """Whether a box is between two heights; those beside the ends of an arrow are not."""
    return box[3] > low + _LEAST_BAND and box[1] < high - _LEAST_BAND


def _bands(
    low: float, high: float, others: Sequence[Rect]
) -> list[tuple[float, float, list[Rect]]]:
    """Boxes between two heights, those that overlap in height together, from below."""
    bands: list[tuple[float, float, list[Rect]]] = []
    between = [box for box in others if _is_between(box, low, high)]
    for box in sorted(between, key=lambda box: (box[1], box[0])):
        bottom, top = max(low, box[1] - BESIDE), min(high, box[3] + BESIDE)
        if bands and bottom < bands[-1][1]:
            before = bands.pop()
            bands.append((before[0], max(before[1], top), [*before[2], box]))
        else:
            bands.append((bottom, top, [box]))
    return bands


def _free(
    ideal: float, blocked: Sequence[tuple[float, float]], inside: Rect, otherwise: float
) -> float:
    """The place next to the ideal one that nothing blocks."""
    edges = [ideal, *(edge for pair in blocked for edge in pair)]
    free = [
        x
        for x in edges
        if inside[0] <= x <= inside[2] and not any(low < x < high for low, high in blocked)
    ]
    return min(free, key=lambda x: (abs(x - ideal), x), default=otherwise)
