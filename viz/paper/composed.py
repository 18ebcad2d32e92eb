"""A figure as plain data: an overview with its places, arrows, labels, caption and legend.

Nothing here draws.  `viz.paper.drawing` writes it to a file; the page draws the same boxes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphs.core.brief import Brief
from graphs.groups.overview import Overview
from viz.paper.arrows import Arrow, Arrows, Sign, drawn_arrows
from viz.paper.curves import Point, Route
from viz.paper.layout import MORE, Placed, moved
from viz.paper.routes import Wanted, routes
from viz.paper.shares import share_places, share_text
from viz.paper.sheet import LEADING, Measure, Sheet, in_lines
from viz.paper.slots import Slot, own_slots
from viz.paper.together import Shown, placed_together
from viz.text.chained import chains_sentence

PLATE = 1.0  # around a share
_LEGEND_APART, _CAPTION_APART = 9.0, 3.0
_CAPTION_LINES = 6


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
    """All that a figure shows, in points from its lower left corner; boxes by their numbers."""

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


def compose(shown: Shown, sheet: Sheet, measure: Measure) -> Composed:
    """The figure of one graph."""
    columns = [[*range(len(shown.graph.provenance.tokens))]]
    return compose_together([shown], own_slots(shown.overview), columns, sheet, measure)[0]


def compose_together(
    shown: Sequence[Shown],
    slots: Sequence[Slot],  # sources before targets
    columns: Sequence[Sequence[int]],  # of the tokens of each prompt, the same for aligned ones
    sheet: Sheet,
    measure: Measure,
) -> list[Composed]:
    """Figures of several graphs, in which boxes of one slot and aligned tokens have one place."""
    sides, height = placed_together(shown, slots, columns, sheet, measure)
    return [
        _composed(one, placed, (sheet.width, height), sheet, measure)
        for one, placed in zip(shown, sides, strict=True)
    ]


def _composed(
    shown: Shown,
    laid: Sequence[Placed],
    size: tuple[float, float],
    sheet: Sheet,
    measure: Measure,
) -> Composed:
    """A figure with its caption and legend below these places."""
    arrows = drawn_arrows(shown.overview)
    caption = (*_caption(shown.overview, arrows), *([shown.sentence] if shown.sentence else []))
    lines = in_lines(" ".join(caption), sheet.width - 4.0, sheet.small, measure, _CAPTION_LINES)
    line = LEADING * sheet.small
    caption_top = 1.0 + line * len(lines)
    legend_y = caption_top + _CAPTION_APART + line / 2
    up = legend_y + line / 2 + _LEGEND_APART
    placed = tuple(moved(one, up) for one in laid)
    whole = (size[0], up + size[1] + 1.0)
    return Composed(
        sheet=sheet,
        width=whole[0],
        height=whole[1],
        placed=placed,
        removed=frozenset(n for n, mark in shown.marks.items() if mark.removed),
        arrows=_drawn(arrows, placed, whole, sheet, measure),
        caption=caption,
        caption_lines=tuple(lines),
        caption_top=caption_top,
        legend=tuple(sign for sign in Sign if any(one.sign == sign for one in arrows.shown)),
        legend_y=legend_y,
    )


def _drawn(
    arrows: Arrows,
    placed: Sequence[Placed],
    size: tuple[float, float],
    sheet: Sheet,
    measure: Measure,
) -> tuple[DrawnArrow, ...]:
    """Routes and labels; tokens in no box stand in the way too."""
    place = {one.box: at for at, one in enumerate(placed) if one.box is not None}
    rects, widths = [one.outer for one in placed], arrows.widths
    wanted = [
        Wanted(place[one.source], place[one.target], width)
        for one, width in zip(arrows.shown, widths, strict=True)
    ]
    curves = routes(rects, wanted, (2.0, 0.0, size[0] - 2.0, size[1]))
    texts = [share_text(one.share) for one in arrows.shown]
    plates = [(measure(text, sheet.small) + 2 * PLATE, sheet.small + PLATE) for text in texts]
    at = share_places(curves, widths, plates, rects, (0.0, 0.0, *size))
    return tuple(
        DrawnArrow(
            arrow, curves[n], widths[n], texts[n], at[n], placed[wanted[n].source].kind == MORE
        )
        for n, arrow in enumerate(arrows.shown)
    )


def _caption(overview: Overview, arrows: Arrows) -> tuple[str, ...]:
    """The chains, and how much of all that flows the arrows show."""
    chains = chains_sentence(overview)
    return (f"{chains}.", arrows.sentence) if chains else (arrows.sentence,)
