"""Drawing of a figure with matplotlib, into SVG, PDF or PNG.

matplotlib is the one well-kept library that writes all three after `pip install` alone: text stays
text, PDFs embed their fonts, and neither a browser nor a library of the system is needed (kaleido
needs the one, cairosvg the other).  It is imported when a figure is drawn, and nowhere else.

Paper is white and signs differ in more than colour: what lowers is dashed and ends in a bar, what
does some of both is grey and has an open head.  The same input gives the same bytes: files have no
date and no random names.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from math import hypot
from typing import Any

from matplotlib import font_manager
from matplotlib import rc_context as _settings  # pyright: ignore[reportUnknownVariableType]
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextToPath

from viz.paper.arrows import Sign
from viz.paper.composed import PLATE, Composed, DrawnArrow
from viz.paper.curves import Point, Route
from viz.paper.layout import BEHIND, MORE, STACK, TARGET, TOKEN, Line, Placed
from viz.paper.legend import entries
from viz.paper.routes import HEAD
from viz.paper.sheet import LEADING
from viz.text.words import letters

FAMILIES = ("Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")  # the first that is there
CREATOR = "headwater"

_POINTS, _DOTS = 72, 300  # per inch; dots of a PNG
_INK, _GREY, _PALE, _WHITE = "#1b1f24", "#6b7280", "#b4bac3", "#ffffff"
_LIT, _LIT_EDGE, _FILL, _EDGE = "#fdeec4", "#c29b1e", "#f2f3f5", "#4a525e"
_COLOURS = {Sign.RAISES: "#0072b2", Sign.LOWERS: "#d55e00", Sign.MIXED: "#7a7a7a"}  # Okabe-Ito
_DASH = (3.4, 1.8)  # points that are drawn and left out
_CROSS = "#aab0ba"  # through boxes that were set to zero
_ROUND = 4.0  # radius of corners
_LEGEND = 1.2  # width of arrows in the legend
_HEAD, _BAR = 0.85 * HEAD, 1.3  # length of a triangle, thickness of a bar
_BASELINE = 0.35  # below the middle of a line, over the size of its type
_SETTINGS: dict[Any, Any] = {
    "font.sans-serif": [*FAMILIES],
    "lines.scale_dashes": False,
    "path.simplify": False,
    "pdf.fonttype": 42,  # fonts are embedded as they are, and text can be searched
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": CREATOR,
    "text.hinting": "none",  # letters as wide in a PNG as they are elsewhere
    "text.parse_math": False,
    "text.usetex": False,
}


def drawn(figure: Composed, format: str) -> tuple[bytes, frozenset[str]]:
    """A figure as SVG, PDF or PNG, and the characters for which no font has a shape."""
    file = BytesIO()
    with _settings(_SETTINGS), _missing() as missing:
        sheet: Any = Figure(figsize=(figure.width / _POINTS, figure.height / _POINTS), dpi=_DOTS)
        area = sheet.add_axes((0.0, 0.0, 1.0, 1.0))
        area.set(xlim=(0.0, figure.width), ylim=(0.0, figure.height))
        area.set_axis_off()
        _draw(area, figure)
        sheet.savefig(file, format=format, dpi=_DOTS, facecolor=_WHITE, metadata=_about(format))
    return file.getvalue(), frozenset(missing)


@cache
def text_width(text: str, size: float) -> float:
    """Width of a text in points, in the font that figures are drawn in."""
    with _settings(_SETTINGS), _missing() as missing:
        width: float = TextToPath().get_text_width_height_descent(text, _font(size), False)[0]
    # Readers may have a shape where there is none here: of wide characters, a wide one.
    return width if not missing else max(width, 0.57 * size * letters(text))


def _about(format: str) -> dict[str, Any]:
    """What a file says of itself: who made it, and not when."""
    return {
        "svg": {"Creator": CREATOR, "Date": None},
        "pdf": {"Creator": CREATOR, "CreationDate": None},
        "png": {"Software": CREATOR},
    }[format]


@contextmanager
def _missing() -> Generator[set[str]]:
    """The characters of which matplotlib says in this block that they are in no font."""
    found: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for one in caught:
        words = str(one.message).split()
        if words[:1] == ["Glyph"] and words[1].isdecimal():
            found.add(chr(int(words[1])))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@cache
def _families() -> list[str]:
    """Those families that are installed, so that a sign is looked for in all of them."""
    known = {one.name for one in font_manager.fontManager.ttflist}
    return [*(name for name in FAMILIES if name in known), "sans-serif"]


def _font(size: float) -> FontProperties:
    return FontProperties(family=_families(), size=size)


def _draw(area: Any, figure: Composed) -> None:
    for one in sorted(figure.arrows, key=lambda one: (not one.pale, one.width)):
        _arrow(area, one)
    for one in figure.placed:
        _box(area, one, is_removed=one.box in figure.removed)
    for one in figure.arrows:
        if one.text_at is not None:
            _share(area, figure, one, one.text_at)
    line = LEADING * figure.sheet.small
    for number, text in enumerate(figure.caption_lines):
        y = figure.caption_top - line * (number + 0.5)
        _text(area, Line(text, 1.0, y, figure.sheet.small), _INK, align="left")
    for entry in entries(figure.legend, figure.sheet, text_width):
        if entry.sign is not None:
            _stroke(area, _raised(entry.route, figure.legend_y), _LEGEND, entry.sign)
        text = Line(entry.text, entry.text_x, figure.legend_y, figure.sheet.small)
        _text(area, text, _GREY, align="left")


def _arrow(area: Any, one: DrawnArrow) -> None:
    below = Outline(*_outline(one.route))
    area.add_patch(PathPatch(below, fc="none", ec=_WHITE, lw=one.width + 1.4, capstyle="butt"))
    _stroke(area, one.route, one.width, one.arrow.sign, pale=one.pale)


def _raised(route: Route, up: float) -> Route:
    return tuple((x, y + up) for x, y in route)


def _stroke(area: Any, route: Route, width: float, sign: Sign, *, pale: bool = False) -> None:
    """A curve with its head: a triangle, open where signs are mixed, or a bar for what lowers."""
    colour = _PALE if pale else _COLOURS[sign]
    along = _direction(route)
    is_bar = sign == Sign.LOWERS
    cut = _BAR if is_bar else _HEAD  # a bar does not touch the box
    end = (route[-1][0] - cut * along[0], route[-1][1] - cut * along[1])
    dashes = (0.0, _DASH) if is_bar else "solid"
    curve = Outline(*_outline(_ended(route, end)))
    area.add_patch(
        PathPatch(
            curve, fc="none", ec=colour, lw=width, ls=dashes, capstyle="butt", joinstyle="round"
        )
    )
    half = _HEAD / 2 + 0.35 * width
    across = (-along[1] * half, along[0] * half)
    if is_bar:
        ends = [(end[0] + sign * across[0], end[1] + sign * across[1]) for sign in (-1, 1)]
        area.add_patch(PathPatch(Outline(ends), ec=colour, lw=_BAR, capstyle="butt"))
        return
    tip = [
        (end[0] - across[0], end[1] - across[1]),
        route[-1],
        (end[0] + across[0], end[1] + across[1]),
    ]
    fill = _WHITE if sign == Sign.MIXED else colour
    area.add_patch(Polygon(tip, fc=fill, ec=colour, lw=0.6 if fill == _WHITE else 0.0))


def _ended(route: Route, end: Point) -> Route:
    """The route with its last piece, which is straight, up to this point."""
    (x, y), (u, v) = route[-4], end
    thirds = [(x + (u - x) * part / 3, y + (v - y) * part / 3) for part in (1, 2, 3)]
    return (*route[:-3], *thirds)


def _direction(route: Route) -> Point:
    """Unit vector along the end of a route."""
    (x, y), (u, v) = route[-4], route[-1]
    length = hypot(u - x, v - y) or 1.0
    return (u - x) / length, (v - y) / length


def _outline(route: Route) -> tuple[list[Point], list[int]]:
    """A route as matplotlib has it."""
    return [*route], [int(Outline.MOVETO), *[int(Outline.CURVE4)] * (len(route) - 1)]


def _share(area: Any, figure: Composed, one: DrawnArrow, at: Point) -> None:
    line = Line(one.text, at[0], at[1], figure.sheet.small)
    _plate(area, line)
    _text(area, line, _GREY if one.pale else _COLOURS[one.arrow.sign])


def _box(area: Any, one: Placed, *, is_removed: bool) -> None:
    """A box with its outlines behind it, and its text."""
    left, bottom, right, top = one.rect
    fill, edge, width, dashes, ink = _look(one)
    for behind in range(BEHIND * one.stacked, -1, -1):
        off = STACK * behind
        area.add_patch(
            FancyBboxPatch(
                (left + off, bottom + off),
                right - left,
                top - bottom,
                boxstyle=f"round,pad=0,rounding_size={_ROUND if one.kind != TOKEN else 2.0}",
                fc=_WHITE if is_removed else fill,
                ec=edge,
                lw=width,
                ls=dashes,
            )
        )
    if is_removed:
        for ends in (((left, bottom), (right, top)), ((left, top), (right, bottom))):
            area.add_patch(PathPatch(Outline([*ends]), ec=_CROSS, lw=1.1, capstyle="butt"))
    for line in one.lines:
        _text(area, line, ink)


def _look(one: Placed) -> tuple[str, str, float, Any, str]:
    """Fill, edge, its width and dashes, and ink."""
    if one.kind == MORE:
        return _WHITE, _PALE, 0.5, (0.0, (2.0, 1.5)), _GREY
    if one.kind == TOKEN and one.box is None:
        return _WHITE, "#dfe2e7", 0.4, "solid", _GREY
    if one.kind == TOKEN:
        return _LIT, _LIT_EDGE, 0.6, "solid", _INK
    if one.kind == TARGET:
        return _WHITE, _INK, 1.1, "solid", _INK
    return _FILL, _EDGE, 0.6, "solid", _INK


def _plate(area: Any, line: Line) -> None:
    """White behind a line of text."""
    width, height = text_width(line.text, line.size) + 2 * PLATE, line.size + PLATE
    corner = (line.x - width / 2, line.y - height / 2)
    area.add_patch(Rectangle(corner, width, height, fc=_WHITE, ec="none"))


def _text(area: Any, line: Line, ink: str, align: str = "center") -> None:
    area.text(
        line.x,
        line.y - _BASELINE * line.size,
        line.text,
        font=_font(line.size),
        color=ink,
        ha=align,
        va="baseline",
    )
