"""Overview data: the summary that a page opens on, with its boxes as nodes of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.comparison.matching import Match
from graphs.core.annotations import Annotations
from graphs.groups.collapse import CyclicGroups
from graphs.groups.counterparts import counterparts
from graphs.groups.grouping import TooManyFeatures
from graphs.groups.overview import Box, BoxKind, Overview, graph_overview
from viz.page.part import Part
from viz.paper.arrows import drawn_arrows
from viz.paper.composed import Composed, compose, compose_together
from viz.paper.curves import Route
from viz.paper.sheet import COLUMN, PAGE
from viz.paper.slots import shared_slots
from viz.paper.together import Shown
from viz.plot.labels import text_width
from viz.text.chained import box_name, chains_sentence

_BELOW = 3.0  # points below the prompt


def part_overview(part: Part, annotations: Annotations) -> Overview | None:
    """The overview of the part's graph; None if its groups cannot be found."""
    try:
        return graph_overview(part.graph, annotations)
    except (CyclicGroups, TooManyFeatures):
        return None


def overview_data(part: Part, found: Overview) -> dict[str, Any]:
    """Boxes with their nodes in the page, what flows between them, and drawings of them."""
    composed = [compose(Shown(part.graph, found), sheet, text_width) for sheet in (PAGE, COLUMN)]
    return {
        "boxes": [_box(part, box) for box in found.boxes],
        "flow": _rows(found.flow),
        "net": _rows(found.net),
        "sentence": chains_sentence(found),
        "counted": drawn_arrows(found).sentence,
        "drawings": [_drawing(one) for one in composed],
    }


def paired_overviews(
    parts: tuple[Part, Part],
    found: tuple[Overview, Overview],
    match: Match,
    columns: tuple[Int[ndarray, " pos"], Int[ndarray, " other"]],  # of the tokens of both
) -> list[dict[str, Any]]:
    """Of both overviews the counterpart of each box, and drawings in which these share places."""
    pairs = counterparts((parts[0].graph, parts[1].graph), found, match, columns)
    slots = shared_slots(*found, [(one.first, one.second) for one in pairs])
    shown = [Shown(part.graph, overview) for part, overview in zip(parts, found, strict=True)]
    at = [own.tolist() for own in columns]
    drawn = [compose_together(shown, slots, at, sheet, text_width) for sheet in (PAGE, COLUMN)]
    partners = (
        {one.first: {"box": one.second, "shared": one.shared} for one in pairs},
        {one.second: {"box": one.first, "shared": one.shared} for one in pairs},
    )
    return [
        {
            "counterparts": [own.get(box) for box in range(len(overview.boxes))],
            "drawings": [_drawing(figures[side]) for figures in drawn],
        }
        for side, (own, overview) in enumerate(zip(partners, found, strict=True))
    ]


def suggested_groups(part: Part, found: Overview, annotations: Annotations) -> list[dict[str, Any]]:
    """The overview's groups that nobody has made, as groups of annotations."""
    own = {group.name for group in annotations.groups if not group.automatic}
    return [
        {
            "name": box.name,
            "members": [str(part.graph.nodes[row]) for row in box.rows.tolist()],
            "automatic": True,
        }
        for box in found.boxes
        if box.kind == BoxKind.GROUP and box.name not in own
    ]


def _box(part: Part, box: Box) -> dict[str, Any]:
    held = np.flatnonzero(np.isin(part.rows, box.rows))
    pos = part.graph.nodes.pos[box.rows]
    return {
        "kind": box.kind.value,
        "name": box_name(box.name),
        "rows": [] if box.kind == BoxKind.MORE else held.tolist(),
        "count": len(box.rows),
        "positions": np.unique(pos[pos >= 0]).tolist() if box.kind == BoxKind.GROUP else [],
        "arrived": float(box.arrived),
    }


def _drawing(composed: Composed) -> dict[str, Any]:
    """Places of a figure without caption and legend, with y downwards."""
    top = composed.height
    bottom = min((one.rect[1] for one in composed.placed), default=0.0) - _BELOW

    def down(y: float) -> float:
        return _short(top - y)

    def path(route: Route) -> str:
        (x, y), *rest = [(_short(x), down(y)) for x, y in route]
        pieces = (rest[at : at + 3] for at in range(0, len(rest), 3))
        return f"M{x} {y}" + "".join(
            f"C{' '.join(f'{x} {y}' for x, y in piece)}" for piece in pieces
        )

    return {
        "width": composed.width,
        "height": down(bottom),
        "small": composed.sheet.small,
        "placed": [
            {
                "box": -1 if one.box is None else one.box,
                "kind": one.kind,
                "rect": [
                    _short(one.rect[0]),
                    down(one.rect[3]),
                    _short(one.rect[2] - one.rect[0]),
                    _short(one.rect[3] - one.rect[1]),
                ],
                "stacked": one.stacked,
                "lines": [
                    {"text": line.text, "x": _short(line.x), "y": down(line.y), "size": line.size}
                    for line in one.lines
                ],
            }
            for one in composed.placed
        ],
        "arrows": [
            {
                "source": one.arrow.source,
                "target": one.arrow.target,
                "sign": one.arrow.sign.value,
                "path": path(one.route),
                "end": [_short(one.route[-1][0]), down(one.route[-1][1])],
                "width": _short(one.width),
                "text": one.text,
                "at": None
                if one.text_at is None
                else [_short(one.text_at[0]), down(one.text_at[1])],
                "pale": one.pale,
            }
            for one in composed.arrows
        ],
    }


def _rows(matrix: Float[ndarray, "target source"]) -> list[list[float]]:
    return [[float(f"{value:.4g}") for value in row] for row in matrix.tolist()]


def _short(length: float) -> float:
    return round(length, 2)
