"""Layout of a figure: the prompt below, groups in rows above their tokens, targets on top.

Pure arithmetic on plain data, in points of 1/72 inch, with y upwards: how wide a text is says a
function that is passed in.  The same input always gives the same places.

The layout is our own: Graphviz needs a binary of the system and ELK an engine for JavaScript, and
neither keeps the tokens of a prompt in their order and places while groups stand above them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from viz.paper.curves import Rect
from viz.paper.prompt_row import PAD as TOKEN_PAD
from viz.paper.prompt_row import RowToken, prompt_row
from viz.paper.ranks import Edge, Item, across, ranks
from viz.paper.routes import least_width
from viz.paper.sheet import LEADING, Measure, Sheet, in_lines

TOKEN, GROUP, TARGET, MORE = "token", "group", "target", "more"  # kinds of boxes
LINES = 2  # of a name, at most
STACK = 2.0  # how far each outline behind a stacked box stands out, to the right and upwards
BEHIND = 2  # outlines behind a stacked box
_PAD = (5.0, 3.0)  # between a box's text and its outline, across and up
_SIDE = 10.0  # beside all boxes, for arrows
_MORE_APART = 8.0  # between the prompt and everything else
_LONGEST = 200  # characters of a name that are looked at


@dataclass(frozen=True)
class Wish:
    """A box that is to be placed."""

    kind: str
    name: str
    position: int | None = None  # of the prompt
    stacked: bool = False  # whether it has several members
    notes: tuple[str, ...] = ()  # lines below the name, in small type
    order: int = 0  # of targets, from left to right
    room: tuple[float, float] = (0.0, 0.0)  # width and height of its text, at least


@dataclass(frozen=True)
class Line:
    """A line of text in a box, by the middle of its line."""

    text: str
    x: float
    y: float
    size: float


@dataclass(frozen=True)
class Placed:
    """A box, a token or an ellipsis of the prompt."""

    kind: str
    lines: tuple[Line, ...]
    rect: Rect  # of the front
    box: int | None = None  # its number; None: a token that is in no box
    stacked: bool = False
    positions: tuple[int, ...] = ()  # of the prompt, of tokens

    @property
    def outer(self) -> Rect:
        """With the outlines behind it."""
        more = STACK * BEHIND * self.stacked
        left, bottom, right, top = self.rect
        return (left, bottom, right + more, top + more)


@dataclass(frozen=True)
class Layout:
    """All boxes, and the size of what they cover, from the point (0, 0)."""

    placed: tuple[Placed, ...]
    width: float
    height: float

    def of_box(self, number: int) -> Placed:
        """The box of this number."""
        return next(one for one in self.placed if one.box == number)


def layout(
    wishes: Sequence[Wish],  # sources before targets
    edges: Sequence[Edge],
    widths: Sequence[float],  # of the arrows of these edges
    tokens: Sequence[str],  # of the prompt; a leading blank begins a word
    sheet: Sheet,
    measure: Measure,
) -> Layout:
    """The places of boxes that these edges join, above a row of the prompt."""
    room = (_SIDE, sheet.width - _SIDE)
    bottom, at = _bottom(wishes, tokens, sheet, measure)
    upper = {n: one for n, one in enumerate(wishes) if one.kind in (GROUP, TARGET)}
    texts = {n: texts_in(one, wishes, sheet, measure) for n, one in upper.items()}
    sizes = {n: _size(texts[n], upper[n], _least(n, edges, widths), measure) for n in upper}
    last = [n for n, one in upper.items() if one.kind == TARGET]
    rank = ranks(
        {n: width for n, (width, _) in sizes.items()}, last, edges, room[1] - room[0], sheet.apart
    )
    items = {
        n: Item(sizes[n][0], None if one.position is None else at[one.position], one.order)
        for n, one in upper.items()
    }
    fixed = {one.box: (one.rect[0] + one.rect[2]) / 2 for one in bottom if one.box is not None}
    x = across(fixed, items, rank, edges, room, sheet.apart)
    placed, y = [*bottom], max((one.rect[3] for one in bottom), default=0.0)
    for row in range(1, max(rank.values(), default=0) + 1):
        members = [n for n in upper if rank[n] == row]
        height = max(sizes[n][1] for n in members)
        y += sheet.gap
        for n in members:
            left = x[n] - sizes[n][0] / 2
            front = sizes[n][0] - STACK * BEHIND * upper[n].stacked
            top = y + height - STACK * BEHIND * upper[n].stacked
            rect = (left, y, left + front, top)
            lines = lines_in(rect, texts[n])
            placed.append(Placed(upper[n].kind, lines, rect, n, upper[n].stacked))
        y += height
    return Layout(tuple(placed), sheet.width, y)


Texts = list[tuple[str, float]]  # lines, and the size of their type


def texts_in(one: Wish, wishes: Sequence[Wish], sheet: Sheet, measure: Measure) -> Texts:
    """Lines of a box's text, which is one of these boxes or stands in the place of one."""
    if one.kind == MORE:
        return [(one.name, sheet.small)]
    beside = sum(other.kind == TARGET for other in wishes) if one.kind == TARGET else 1
    room = (sheet.width - 2 * _SIDE + sheet.apart) / max(1, beside) - sheet.apart - 2 * _PAD[0]
    longest = min(sheet.longest, room - STACK * BEHIND)
    name = in_lines(one.name[:_LONGEST], longest, sheet.name, measure, LINES)
    notes = [
        line for note in one.notes for line in in_lines(note, longest, sheet.small, measure, 1)
    ]
    return [*((text, sheet.name) for text in name), *((text, sheet.small) for text in notes)]


def _least(box: int, edges: Sequence[Edge], widths: Sequence[float]) -> float:
    """Width that the arrows below and above a box need."""
    return max(
        least_width([w for w, edge in zip(widths, edges, strict=True) if edge[end] == box])
        for end in (0, 1)
    )


def size_of(texts: Texts, measure: Measure) -> tuple[float, float]:
    """Width and height of these lines."""
    width = max((measure(text, size) for text, size in texts), default=0.0)
    return width, sum(LEADING * size for _, size in texts)


def _size(texts: Texts, one: Wish, least: float, measure: Measure) -> tuple[float, float]:
    """Width and height of a box around these lines, with the outlines behind it."""
    more = STACK * BEHIND * one.stacked
    width, height = map(max, size_of(texts, measure), one.room)
    return max(max(width, height) + 2 * _PAD[0] + more, least), height + 2 * _PAD[1] + more


def lines_in(rect: Rect, texts: Texts) -> tuple[Line, ...]:
    """Lines one below the other around the middle of a box."""
    x, height = (rect[0] + rect[2]) / 2, sum(LEADING * size for _, size in texts)
    y = (rect[1] + rect[3] + height) / 2
    lines: list[Line] = []
    for text, size in texts:
        lines.append(Line(text, x, y - LEADING * size / 2, size))
        y -= LEADING * size
    return tuple(lines)


def _bottom(
    wishes: Sequence[Wish], tokens: Sequence[str], sheet: Sheet, measure: Measure
) -> tuple[list[Placed], Mapping[int, float]]:
    """The prompt, with everything else to its right; and where each position is."""
    used = {one.position: n for n, one in enumerate(wishes) if one.kind == TOKEN}
    needed = {one.position for one in wishes if one.kind == TOKEN and one.position is not None}
    liked: Collection[int] = {one.position for one in wishes if one.position is not None}
    more = next((n for n, one in enumerate(wishes) if one.kind == MORE), None)
    beside: list[Placed] = []
    right = sheet.width - 1.0
    if more is not None:
        texts = texts_in(wishes[more], wishes, sheet, measure)
        width = max(size_of(texts, measure)[0], wishes[more].room[0]) + 2 * TOKEN_PAD
        rect = (right - width, 0.0, right, sheet.small * LEADING + 2 * TOKEN_PAD)
        beside = [Placed(MORE, lines_in(rect, texts), rect, more)]
        right -= width + _MORE_APART
    row = prompt_row(tokens, needed, liked, (1.0, right), sheet, measure) if tokens else []
    placed = [_token(one, used, sheet) for one in row]
    at = {pos: (one.rect[0] + one.rect[2]) / 2 for one in row for pos in one.positions}
    return [*placed, *beside], at


def _token(one: RowToken, used: Mapping[int | None, int], sheet: Sheet) -> Placed:
    box = used.get(one.positions[0]) if len(one.positions) == 1 else None
    lines = lines_in(one.rect, [(one.text, sheet.small)])
    return Placed(TOKEN, lines, one.rect, box, positions=one.positions)


def moved(placed: Placed, up: float) -> Placed:
    """The same box, higher."""
    left, bottom, right, top = placed.rect
    lines = tuple(replace(line, y=line.y + up) for line in placed.lines)
    return replace(placed, rect=(left, bottom + up, right, top + up), lines=lines)
