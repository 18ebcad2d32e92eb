"""Together: boxes of several graphs laid out as one, so that each slot has one place in all.

The layout is that of all boxes and all arrows.  A slot is as large as the largest of its boxes, and
every graph then has its own boxes and tokens there, with their own texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import Box, BoxKind, Overview
from viz.paper.arrows import drawn_arrows
from viz.paper.layout import TOKEN, Placed, Wish, layout, lines_in, size_of, texts_in
from viz.paper.prompt_row import PAD
from viz.paper.shares import share_text
from viz.paper.sheet import Measure, Sheet, cut
from viz.paper.slots import Slot
from viz.text.chained import box_name
from viz.text.words import visible

_ROUNDING = 0.01  # of widths, in points


@dataclass(frozen=True)
class Mark:
    """What an intervention did to a box; stands in the place of a target's probability."""

    note: str  # before → after; empty: unknown
    removed: bool = False  # whether all its members were set to zero


@dataclass(frozen=True, repr=False)
class Shown(Brief):
    """A graph, its overview, and what an intervention did to its boxes."""

    graph: AttributionGraph
    overview: Overview
    marks: Mapping[int, Mark] = field(default_factory=dict[int, Mark])  # by number of the box
    sentence: str = ""  # ends the caption

    def tokens(self, columns: Sequence[int]) -> dict[int, str]:
        """Texts of the prompt's tokens by column; a leading blank begins a word."""
        return dict(zip(columns, map(_token, self.graph.provenance.tokens), strict=True))


def placed_together(
    shown: Sequence[Shown],
    slots: Sequence[Slot],
    columns: Sequence[Sequence[int]],  # of the tokens of each prompt
    sheet: Sheet,
    measure: Measure,
) -> tuple[list[list[Placed]], float]:
    """Places of the boxes of each graph, by their own numbers, and the height of all."""
    boxes = [
        {
            place: (number, _wish(one, number, own))
            for place, slot in enumerate(slots)
            if (number := slot[side]) is not None
        }
        for side, (one, own) in enumerate(zip(shown, columns, strict=True))
    ]
    tokens = [one.tokens(own) for one, own in zip(shown, columns, strict=True)]
    wishes = _largest(boxes, len(slots), sheet, measure)
    edges = _edges(shown, boxes)
    laid = layout(
        wishes,
        # Rounded, so that orders of equal cost do not depend on the last bits of a sum.
        [(*ends, round(share, 9)) for ends, (share, _) in edges.items()],
        [width for _, width in edges.values()],
        _widest(tokens, sheet, measure),
        sheet,
        measure,
    )
    sides: list[list[Placed]] = []
    for own, texts in zip(boxes, tokens, strict=True):
        side = [_own(one, own, texts, wishes, sheet, measure) for one in laid.placed]
        sides.append([one for one in side if one is not None])
    return sides, laid.height


def _largest(
    boxes: Sequence[Mapping[int, tuple[int, Wish]]], count: int, sheet: Sheet, measure: Measure
) -> list[Wish]:
    """A box for each slot, with room for the text of each of its boxes."""
    there = [[own[place][1] for own in boxes if place in own] for place in range(count)]
    first = [wishes[0] for wishes in there]
    found: list[Wish] = []
    for wishes in there:
        sizes = [size_of(texts_in(one, first, sheet, measure), measure) for one in wishes]
        widths, heights = zip(*sizes, strict=True)
        stacked = any(one.stacked for one in wishes)
        found.append(replace(wishes[0], stacked=stacked, room=(max(widths), max(heights))))
    return found


def _edges(
    shown: Sequence[Shown], boxes: Sequence[Mapping[int, tuple[int, Wish]]]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Share and width of the arrows of all graphs, by their slots; the largest of each."""
    found: dict[tuple[int, int], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for one, own in zip(shown, boxes, strict=True):
        at = {number: place for place, (number, _) in own.items()}
        arrows = drawn_arrows(one.overview)
        for arrow, wide in zip(arrows.shown, arrows.widths, strict=True):
            ends = (at[arrow.source], at[arrow.target])
            share, width = found[ends]
            found[ends] = (max(share, arrow.share), max(width, wide))
    return found


def _widest(tokens: Sequence[Mapping[int, str]], sheet: Sheet, measure: Measure) -> list[str]:
    """The widest text of each column."""
    columns = sorted({column for texts in tokens for column in texts})
    every = [[texts[column] for texts in tokens if column in texts] for column in columns]
    return [max(texts, key=lambda text: measure(text, sheet.small)) for texts in every]


def _own(
    one: Placed,
    boxes: Mapping[int, tuple[int, Wish]],
    tokens: Mapping[int, str],
    wishes: Sequence[Wish],
    sheet: Sheet,
    measure: Measure,
) -> Placed | None:
    """What one graph has in a place; None: nothing."""
    number, wish = (None, None) if one.box is None else boxes.get(one.box, (None, None))
    if one.kind != TOKEN:
        if wish is None:
            return None
        texts = texts_in(wish, wishes, sheet, measure)
        return replace(one, lines=lines_in(one.rect, texts), box=number, stacked=wish.stacked)
    column, *others = one.positions
    if others:
        return one  # an ellipsis
    text = tokens.get(column)
    if text is None:
        return None
    room = one.rect[2] - one.rect[0] - 2 * PAD + _ROUNDING
    own = cut(text.strip() or text, room, sheet.small, measure)
    return replace(one, lines=lines_in(one.rect, [(own, sheet.small)]), box=number)


def _wish(shown: Shown, number: int, columns: Sequence[int]) -> Wish:
    graph, box, mark = shown.graph, shown.overview.boxes[number], shown.marks.get(number)
    notes: list[str] = []
    if box.kind == BoxKind.TARGET and len(box.rows) == 1 and mark is None:
        rows: list[int] = graph.target_rows().tolist()
        target = graph.provenance.targets[rows.index(int(box.rows[0]))]
        if target.token_id is not None and target.probability is not None:
            notes.append(share_text(target.probability))
    if mark is not None and mark.note:
        notes.append(mark.note)
    position = None if box.kind == BoxKind.MORE else _position(graph, box)
    return Wish(
        kind=box.kind.value,
        name=box_name(box.name),
        position=None if position is None else columns[position],
        stacked=box.kind == BoxKind.GROUP and len(box.rows) > 1,
        notes=tuple(notes),
        order=_order(shown, number),
    )


def _order(shown: Shown, number: int) -> int:
    """The place of a target among all: the heaviest comes first, "N more" last."""
    boxes, seed = shown.overview.boxes, shown.graph.seed
    targets = shown.overview.of_kind(BoxKind.TARGET)
    targets.sort(key=lambda n: (len(boxes[n].rows) > 1, -float(seed[boxes[n].rows].sum())))
    return targets.index(number) if number in targets else 0


def _position(graph: AttributionGraph, box: Box) -> int | None:
    """The position of most members of a box."""
    at: list[int] = graph.nodes.pos[box.rows].tolist()
    known: list[int] = sorted(pos for pos in at if pos >= 0)
    return max(known, key=known.count) if known else None


def _token(text: str) -> str:
    """A token as the prompt has it: a blank in front begins a word."""
    return f" {visible(text[1:])}" if text[:1] == " " and text.strip(" ") else visible(text)
