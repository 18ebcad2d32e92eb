"""Shares: the percentage beside an arrow, where there is room for it.

A label stands on its arrow, or else beside it, on a white plate that touches no box, no other label
and no other arrow.  Strong arrows choose first; an arrow without room has no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil, dist

from viz.paper.curves import Point, Rect, Route, sampled
from viz.paper.routes import HEAD

Near = tuple[Point, float]  # of an arrow, and how far a label must be from it

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
    points = [_dense(route) for route in routes]
    extents = [_extent(line) for line in points]
    far = max(widths, default=0.0) + _APART  # at which an arrow does not matter
    taken: list[Rect] = []
    found: list[Point | None] = [None] * len(routes)
    for number in sorted(range(len(routes)), key=lambda n: (-widths[n], n)):
        width, height = plates[number]
        left, bottom, right, top = extents[number]
        reach = (left - width - far, bottom - height - far, right + width + far, top + height + far)
        others = [
            (point, widths[other] / 2)
            for other, line in enumerate(points)
            if other != number and _touch(reach, extents[other], 0.0)
            for point in line
            if _touch(reach, (*point, *point), 0.0)
        ]
        boxed = [box for box in (*boxes, *taken) if _touch(reach, box, AWAY)]
        for (x, y), near in _places(points[number], widths[number], plates[number], others):
            plate = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            if (
                _lies_in(plate, inside)
                and not any(_touch(plate, box, AWAY) for box in boxed)
                and not any(_touch(plate, (*point, *point), away) for point, away in near)
            ):
                found[number] = (x, y)
                taken.append(plate)
                break
    return found


def _places(
    points: Sequence[Point], thick: float, plate: tuple[float, float], others: Sequence[Near]
) -> Iterator[tuple[Point, Sequence[Near]]]:
    """Places of a label, the best first, and what it must keep away from there."""
    along = _along(points, plate[1] / 2 + _FREE)
    upon = [(point, half + AWAY) for point, half in others]
    yield from ((place, upon) for place in along)
    own = [(point, thick / 2) for point in points]
    beside = [(point, half + _APART) for point, half in others] + own
    aside = (plate[0] + thick) / 2 + AWAY
    yield from (((x + side, y), beside) for x, y in along for side in (-aside, aside))


def _dense(route: Route) -> list[Point]:
    """Points of a route, of which no two neighbours are far from each other."""
    points = [route[0]]
    for piece in range(0, len(route) - 1, 3):
        part = route[piece : piece + 4]
        length = sum(dist(one, other) for one, other in pairwise(part))
        points += sampled(part, max(2, ceil(length / _STEP)))[1:]
    return points


def _extent(points: Sequence[Point]) -> Rect:
    x, y = [x for x, _ in points], [y for _, y in points]
    return min(x), min(y), max(x), max(y)


def _along(points: Sequence[Point], free: float) -> list[Point]:
    """Some points of an arrow, those in its middle first; as much is left free at both ends."""
    low, high = points[0][1] + free, points[-1][1] - HEAD - free
    body = [point for point in points if low <= point[1] <= high]
    middle = (len(body) - 1) / 2
    order = sorted(range(0, len(body), _EVERY), key=lambda n: (abs(n - middle), n))
    return [body[n] for n in order]


def _lies_in(plate: Rect, inside: Rect) -> bool:
    return (
        plate[0] >= inside[0]
        and plate[1] >= inside[1]
        and plate[2] <= inside[2]
        and plate[3] <= inside[3]
    )


def _touch(one: Rect, other: Rect, away: float) -> bool:
    """Whether two rectangles are nearer to each other than this, across and up."""
    return (
        one[0] < other[2] + away
        and other[0] < one[2] + away
        and one[1] < other[3] + away
        and other[1] < one[3] + away
    )
