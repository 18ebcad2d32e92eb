"""Ranks: in which row above the prompt each box stands, and at which place of the row.

A box stands above all boxes that feed it, and in the lowest row that has room for it.  Within a
row targets have their own order, and other boxes that of where they would like to be: above their
token, and between the boxes that they are joined to (the barycentre of Sugiyama, Tagawa and Toda,
"Methods for visual understanding of hierarchical system structures", 1981).  Where an arrow passes
a row it has a narrow place of its own there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

PASSING = 5.0  # width of the place of an arrow that passes a row
_ROUNDS = 16
_OWN = 0.5  # how much the token counts beside the boxes that a box is joined to


@dataclass(frozen=True)
class Item:
    """A box that is to be placed."""

    width: float
    wish: float | None  # where its token is; None: anywhere
    order: int = 0  # in its row, lower ones are further to the left


@dataclass
class _Place:
    """Something in a row: a box, or an arrow that passes."""

    rank: int
    width: float
    wish: float | None
    x: float
    order: int = 0
    is_box: bool = True
    joined: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])  # and weight


Edge = tuple[int, int, float]  # source, target, share


def ranks(
    widths: Mapping[int, float],
    last: Sequence[int],
    edges: Sequence[Edge],
    room: float,
    apart: float,
) -> dict[int, int]:
    """The row of each box, 1 for the lowest, those in `last` together in the highest.

    Boxes are numbered so that sources come before targets.
    """
    found: dict[int, int] = {}
    used: dict[int, float] = defaultdict(lambda: apart)
    for box in sorted(widths):
        if box in last:
            continue
        rank = 1 + max((found.get(source, 0) for source, to, _ in edges if to == box), default=0)
        while used[rank] > apart and used[rank] + widths[box] + apart > room:
            rank += 1
        used[rank] += widths[box] + apart
        found[box] = rank
    top = 1 + max(found.values(), default=0)
    return found | dict.fromkeys(last, top)


def across(
    fixed: Mapping[int, float],  # boxes of the row below all others, and where they are
    items: Mapping[int, Item],
    rank: Mapping[int, int],
    edges: Sequence[Edge],
    room: tuple[float, float],
    apart: float,  # between two boxes of a row
) -> dict[int, float]:
    """Where the middle of each box is, from left to right."""
    places, segments = _places(fixed, items, rank, edges, room)
    rows: dict[int, list[int]] = defaultdict(list)
    for number, place in places.items():
        if place.rank > 0:
            rows[place.rank].append(number)
    best, least = dict[int, float](), float("inf")
    for turn in range(_ROUNDS):
        for row in sorted(rows, reverse=turn % 2 == 1):
            _settle([places[number] for number in rows[row]], places, room, apart)
        cost = _cost(places, segments)
        if cost < least:
            best, least = {number: places[number].x for number in items}, cost
    return best


def _places(
    fixed: Mapping[int, float],
    items: Mapping[int, Item],
    rank: Mapping[int, int],
    edges: Sequence[Edge],
    room: tuple[float, float],
) -> tuple[dict[int, _Place], list[tuple[int, int]]]:
    """Everything that takes room in a row, and which of it is joined, from below to above."""
    middle = (room[0] + room[1]) / 2
    places = {number: _Place(0, 0.0, None, x) for number, x in fixed.items()}
    for number, item in items.items():
        x = middle if item.wish is None else item.wish
        places[number] = _Place(rank[number], item.width, item.wish, x, item.order)
    segments: list[tuple[int, int]] = []
    for source, target, share in edges:
        low, high = places[source], places[target]
        chain = [source]
        for row in range(low.rank + 1, high.rank):
            part = (row - low.rank) / (high.rank - low.rank)
            chain.append(len(places) + 10**6)
            places[chain[-1]] = _Place(
                row, PASSING, None, low.x + part * (high.x - low.x), is_box=False
            )
        for one, other in pairwise([*chain, target]):
            segments.append((one, other))
            places[one].joined.append((other, share))
            places[other].joined.append((one, share))
    return places, segments


def _settle(
    row: list[_Place], places: Mapping[int, _Place], room: tuple[float, float], apart: float
) -> None:
    """Move what is in a row to where it would like to be, as far as there is room."""
    wishes: list[tuple[int, float, int]] = []
    for number, place in enumerate(row):
        whole = sum(share for _, share in place.joined)
        x = place.x
        if whole > 0:
            x = sum(share * places[other].x for other, share in place.joined) / whole
        if place.wish is not None:
            x = _OWN * place.wish + (1 - _OWN) * x if whole > 0 else place.wish
        wishes.append((place.order, x, number))
    order = sorted(wishes)
    boxes = [row[number] for _, _, number in order]
    for place, x in zip(boxes, _apart([x for _, x, _ in order], boxes, room, apart), strict=True):
        place.x = x


def _apart(
    wishes: Sequence[float], row: Sequence[_Place], room: tuple[float, float], apart: float
) -> list[float]:
    """Places in this order, as near to the wishes as their widths allow, by least squares.

    Neighbours that would overlap become one block, which stands where its members would like to be
    on average (pool adjacent violators).  Without room for all, arrows that pass get none.
    """
    for passing in (PASSING, 0.0):
        widths = [place.width if place.is_box else passing for place in row]
        offsets = [0.0]
        for one, other in pairwise(range(len(row))):
            boxes = row[one].is_box + row[other].is_box
            gap = apart * boxes / 2 if boxes or not passing else PASSING / 2
            offsets.append(offsets[-1] + (widths[one] + widths[other]) / 2 + gap)
        low, high = room[0] + widths[0] / 2, room[1] - widths[-1] / 2 - offsets[-1]
        if low <= high:
            break
    blocks: list[tuple[float, int]] = []  # mean of wish − offset, and number of members
    for wish, offset in zip(wishes, offsets, strict=True):
        mean, count = wish - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, members = blocks.pop()
            mean = (before * members + mean * count) / (members + count)
            count += members
        blocks.append((mean, count))
    starts = [mean for mean, count in blocks for _ in range(count)]
    return [
        max(low, min(start, high)) + offset for start, offset in zip(starts, offsets, strict=True)
    ]


def _cost(places: Mapping[int, _Place], segments: Sequence[tuple[int, int]]) -> float:
    """Crossings, and a little for each point that arrows go to the side."""
    ends = [(places[low].rank, places[low].x, places[high].x, low, high) for low, high in segments]
    crossings = sum(
        one[0] == other[0]
        and one[3] != other[3]
        and one[4] != other[4]
        and (one[1] - other[1]) * (one[2] - other[2]) < 0
        for number, one in enumerate(ends)
        for other in ends[:number]
    )
    return crossings + sum(abs(x - y) for _, x, y, _, _ in ends) / 1000
