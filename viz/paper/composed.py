"""A figure as plain data: an overview with its places, arrows, labels, caption and legend.

Nothing here draws.  `viz.paper.drawing` writes it to a file; the page draws the same boxes itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import Box, BoxKind, Overview
from viz.paper.arrows import Arrow, Arrows, Sign, drawn_arrows
from viz.paper.curves import Point, Route
from viz.paper.layout import MORE, Placed, Wish, layout, moved
from viz.paper.routes import Wanted, routes
from viz.paper.shares import share_places
from viz.paper.sheet import LEADING, Measure, Sheet, in_lines
from viz.text.chained import box_name, chains_sentence
from viz.text.words import visible

THINNEST, WIDEST = 0.6, 3.6  # of arrows, in points
PLATE = 1.0  # around a share
_LEGEND_APART, _CAPTION_APART = 9.0, 3.0
_CAPTION_LINES = 6


@dataclass(frozen=True)
class Mark:
    """What an intervention did to a box; stands in the place of a target's probability."""

    note: str  # before → after; empty: unknown
    removed: bool = False  # whether all its members were set to zero


@dataclass(frozen=True, repr=False)
class DrawnArrow(Brief):
    """An arrow with its curve."""

    arrow: Arrow
    route: Route
    width: float
    text: str  # its share
    text_at: Point | None  # None: there is no room
    pale: bool  # from everything else


@dataclass(frozen=True, repr=False)
class Composed(Brief):
    """All that a figure shows, in points from its lower left corner."""

    sheet: Sheet
    width: float
    height: float
    placed: tuple[Placed, ...]
    removed: frozenset[int]  # boxes that are crossed out
    arrows: tuple[DrawnArrow, ...]
    caption: tuple[str, ...]  # sentences
    caption_lines: tuple[str, ...]
    caption_top: float
    legend: tuple[Sign, ...]  # signs that occur
    legend_y: float  # middle of its line


def compose(
    graph: AttributionGraph,
    overview: Overview,
    sheet: Sheet,
    measure: Measure,
    marks: Mapping[int, Mark] | None = None,
    sentence: str = "",
) -> Composed:
    """The figure of an overview; `marks` are of boxes, and `sentence` ends the caption."""
    marks = marks or {}
    shown = overview.occupied
    arrows = drawn_arrows(overview)
    number = {box: place for place, box in enumerate(shown)}
    edges = [(number[one.source], number[one.target], one.share) for one in arrows.shown]
    wishes = [_wish(graph, overview.boxes[n], marks.get(n)) for n in shown]
    tokens = [_token(text) for text in graph.provenance.tokens]
    widths = _widths(edges)
    laid = layout(wishes, edges, widths, tokens, sheet, measure)
    caption = (*_caption(overview, arrows), *([sentence] if sentence else []))
    lines = in_lines(" ".join(caption), sheet.width - 4.0, sheet.small, measure, _CAPTION_LINES)
    line = LEADING * sheet.small
    caption_top = 1.0 + line * len(lines)
    legend_y = caption_top + _CAPTION_APART + line / 2
    up = legend_y + line / 2 + _LEGEND_APART
    placed = tuple(moved(one, up) for one in laid.placed)
    height = up + laid.height + 1.0
    return Composed(
        sheet=sheet,
        width=laid.width,
        height=height,
        placed=placed,
        removed=frozenset(number[n] for n, mark in marks.items() if mark.removed and n in number),
        arrows=_drawn(arrows, edges, widths, placed, (laid.width, height), sheet, measure),
        caption=caption,
        caption_lines=tuple(lines),
        caption_top=caption_top,
        legend=tuple(sign for sign in Sign if any(one.sign == sign for one in arrows.shown)),
        legend_y=legend_y,
    )


def _widths(edges: Sequence[tuple[int, int, float]]) -> list[float]:
    """Widths of arrows, by their shares: the largest of the figure is widest."""
    most = max((share for _, _, share in edges), default=1.0)
    return [max(THINNEST, WIDEST * share / most) for _, _, share in edges]


def _drawn(
    arrows: Arrows,
    edges: Sequence[tuple[int, int, float]],
    widths: Sequence[float],
    placed: Sequence[Placed],
    size: tuple[float, float],
    sheet: Sheet,
    measure: Measure,
) -> tuple[DrawnArrow, ...]:
    """Routes and labels; boxes are numbered as placed, tokens in no box stand in the way too."""
    place = {one.box: at for at, one in enumerate(placed) if one.box is not None}
    rects = [one.outer for one in placed]
    wanted = [
        Wanted(place[source], place[target], width)
        for (source, target, _), width in zip(edges, widths, strict=True)
    ]
    curves = routes(rects, wanted, (2.0, 0.0, size[0] - 2.0, size[1]))
    texts = [_share(share) for _, _, share in edges]
    plates = [(measure(text, sheet.small) + 2 * PLATE, sheet.small + PLATE) for text in texts]
    at = share_places(curves, widths, plates, rects, (0.0, 0.0, *size))
    return tuple(
        DrawnArrow(
            arrow, curves[n], widths[n], texts[n], at[n], placed[wanted[n].source].kind == MORE
        )
        for n, arrow in enumerate(arrows.shown)
    )


def _wish(graph: AttributionGraph, box: Box, mark: Mark | None) -> Wish:
    notes: list[str] = []
    if box.kind == BoxKind.TARGET and len(box.rows) == 1 and mark is None:
        rows: list[int] = graph.target_rows().tolist()
        target = graph.provenance.targets[rows.index(int(box.rows[0]))]
        if target.token_id is not None and target.probability is not None:
            notes.append(_share(target.probability))
    if mark is not None and mark.note:
        notes.append(mark.note)
    return Wish(
        kind=box.kind.value,
        name=box_name(box.name),
        position=None if box.kind == BoxKind.MORE else _position(graph, box),
        stacked=box.kind == BoxKind.GROUP and len(box.rows) > 1,
        notes=tuple(notes),
    )


def _position(graph: AttributionGraph, box: Box) -> int | None:
    """The position of most members of a box."""
    at: list[int] = graph.nodes.pos[box.rows].tolist()
    known: list[int] = sorted(pos for pos in at if pos >= 0)
    return max(known, key=known.count) if known else None


def _token(text: str) -> str:
    """A token as the prompt has it: a blank in front begins a word."""
    return f" {visible(text[1:])}" if text[:1] == " " and text.strip(" ") else visible(text)


def _share(share: float) -> str:
    """A share in whole percent."""
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _caption(overview: Overview, arrows: Arrows) -> tuple[str, ...]:
    """The chains, and how much of all that flows the arrows show."""
    chains = chains_sentence(overview)
    return (f"{chains}.", arrows.sentence) if chains else (arrows.sentence,)
