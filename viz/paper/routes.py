"""Routes: arrows between boxes as smooth curves that no box hides.

All arrows point upwards, from the top of one box to the bottom of another (`viz.paper.curves`).
Arrows at one edge of a box use different points of it and fan out: their order is that in which
they part.  As the curves change with it, a few orders are tried, and the one with the fewest
crossings, the least crowding and the shortest detours is taken.

Lengths are points of 1/72 inch, y grows upwards.  Strong arrows choose first; the same boxes and
arrows always give the same curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from viz.paper.curves import Drawn, Point, Rect, Route, line, sampled, way

HEAD = 5.0  # length of a head; an arrow is straight there
_STUB = 2.0  # straight at its start
_FAN = 6.0  # room of an arrow at an edge, more for wide ones
_CORNER = 3.0  # of an edge, without arrows
_ROUNDS = 3
_STEP, _PARTED = 4.0, 8.0  # in height, and to the side
_AHEAD = 20.0  # from a box, up to where an arrow shows at which point it left
_CROWDING = 4.0  # crossings that are as bad as an arrow that runs along others
_LONG = 30.0  # points to the side and back that are as bad as a crossing


@dataclass(frozen=True)
class Wanted:
    """An arrow to be drawn: numbers of two boxes, and its width."""

    source: int
    target: int
    width: float


def routes(boxes: Sequence[Rect], arrows: Sequence[Wanted], inside: Rect) -> list[Route]:
    """The curve of each arrow; lanes keep within the rectangle `inside` where there is room."""
    middles = [(box[0] + box[2]) / 2 for box in boxes]
    straight: list[Route] = []
    for one in arrows:
        start = (middles[one.source], boxes[one.source][3])
        end = (middles[one.target], boxes[one.target][1])
        straight.append((start, *line(start, end)))
    best, least, curves = straight, float("inf"), straight
    for _ in range(_ROUNDS):
        curves, crowding = _curves(boxes, arrows, *_ports(boxes, arrows, curves), inside)
        cost = _crossings(curves) + _CROWDING * crowding + sum(map(_detour, curves)) / _LONG
        if cost < least:
            best, least = curves, cost
    return best


def least_width(widths: Sequence[float]) -> float:
    """Width of a box at one of whose edges arrows of these widths have room."""
    return 2 * _CORNER + sum(map(_room, widths)) if widths else 0.0


def _curves(
    boxes: Sequence[Rect],
    arrows: Sequence[Wanted],
    starts: Sequence[Point],
    ends: Sequence[Point],
    inside: Rect,
) -> tuple[list[Route], float]:
    """The curves between these points, and the sum of what of each runs along others."""
    found: list[Route] = [()] * len(arrows)
    drawn, crowding = Drawn(), 0.0
    for number in sorted(range(len(arrows)), key=lambda n: (-arrows[n].width, n)):
        one, start, end = arrows[number], starts[number], ends[number]
        others = [box for n, box in enumerate(boxes) if n not in (one.source, one.target)]
        room = max(0.0, end[1] - start[1])
        low = (start[0], start[1] + min(_STUB, room / 8))
        high = (end[0], end[1] - min(HEAD, room / 3))
        between = way(low, high, others, one.width, drawn, inside)
        found[number] = (start, *line(start, low), *between, *line(high, end))
        points = sampled(found[number])
        crowding += drawn.crowded(points, one.width)
        drawn.add(points, one.width)
    return found, crowding


def _crossings(curves: Sequence[Route]) -> int:
    """How often two curves cross, seen at steps of height."""
    steps = [_at_steps(route) for route in curves]
    crossings = 0
    for number, one in enumerate(steps):
        for other in steps[:number]:
            sides = [one[y] > other[y] for y in sorted(one.keys() & other.keys())]
            crossings += sum(a != b for a, b in pairwise(sides))
    return crossings


def _detour(route: Route) -> float:
    """How far a curve goes to the side and back."""
    sideways = sum(abs(u - x) for (x, _), (u, _) in pairwise(sampled(route)))
    return sideways - abs(route[-1][0] - route[0][0])


def _at_steps(route: Route) -> dict[int, float]:
    """Where a curve is at whole steps of height."""
    points = sampled(route)
    found: dict[int, float] = {}
    for (x, y), (u, v) in pairwise(points):
        for step in range(ceil(y / _STEP), int(v / _STEP) + 1):
            found[step] = x + (u - x) * (step * _STEP - y) / max(1e-9, v - y)
    return found


def _ports(
    boxes: Sequence[Rect], arrows: Sequence[Wanted], curves: Sequence[Route]
) -> tuple[list[Point], list[Point]]:
    """Where each arrow leaves its source and enters its target, by the curves so far."""
    starts = [route[0] for route in curves]
    ends = [route[-1] for route in curves]
    for place, box in enumerate(boxes):
        x, bottom, top = (box[0] + box[2]) / 2, box[1], box[3]
        for is_start, points, y in ((True, starts, top), (False, ends, bottom)):
            mine = [
                n
                for n, one in enumerate(arrows)
                if place == (one.source if is_start else one.target)
            ]
            away = [_away(curves[n], x, up=is_start) for n in mine]
            left_of = [sum(_is_left(other, one) for other in away) for one in away]
            order = [n for _, n in sorted(zip(left_of, mine, strict=True))]
            places = _spread(box, [arrows[n].width for n in order])
            for number, at in zip(order, places, strict=True):
                points[number] = (at, y)
    return starts, ends


def _away(route: Route, x: float, *, up: bool) -> list[float]:
    """Where an arrow is at steps of height away from a box, if it leaves it in its middle."""
    steps = _at_steps(route)
    order = sorted(steps, reverse=not up)
    shift = x - route[0 if up else -1][0]
    return [steps[n] + shift * max(0.0, 1 - m * _STEP / _AHEAD) for m, n in enumerate(order)]


def _is_left(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether an arrow is to the left of another where the two part."""
    for x, u in zip(one, other, strict=False):
        if abs(x - u) > _PARTED:
            return x < u
    return bool(one and other) and one[-1] < other[-1]


def _spread(box: Rect, widths: Sequence[float]) -> list[float]:
    """Places along an edge of a box, with room for these widths, around its middle."""
    whole = sum(map(_room, widths)) or 1.0
    scale = min(1.0, max(0.0, box[2] - box[0] - 2 * _CORNER) / whole)
    x = (box[0] + box[2]) / 2 - scale * whole / 2
    found: list[float] = []
    for width in widths:
        found.append(x + scale * _room(width) / 2)
        x += scale * _room(width)
    return found


def _room(width: float) -> float:
    """Room along an edge for an arrow with its head."""
    return max(_FAN, 5.0 + 0.8 * width)
