"""A figure of a graph for a paper, and its files.

    viz.paper_figure(graph, annotations).write("circuit.pdf")

In a notebook the figure shows itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.disk.files import atomic_write
from graphs.groups.overview import GROUPS, BoxKind, Overview, graph_overview, overview
from viz.paper.composed import Composed, compose
from viz.paper.drawing import drawn, text_width
from viz.paper.formats import FigureError, Width, figure_format, figure_width
from viz.paper.sheet import COLUMN, PAGE
from viz.paper.together import Mark, Shown
from viz.text.words import quoted

_NAMED = 8  # groups and characters in a sentence


@dataclass(frozen=True, repr=False)
class PaperFigure:
    """A figure of a graph, to be written as SVG, PDF or PNG; notebooks show it."""

    composed: Composed

    @property
    def caption(self) -> tuple[str, ...]:
        """Sentences: which chains carry how much, if there are any, and which arrows are shown."""
        return self.composed.caption

    def __repr__(self) -> str:
        return f"<figure: {' '.join(self.caption)}>"

    def _repr_svg_(self) -> str:
        return drawn(self.composed, "svg")[0].decode()

    def write(self, path: Path | str) -> str:
        """Write the figure, as its suffix says; returns a remark, empty if there is none.

        The remark names characters that no font here has.  Raises FigureError for a suffix other
        than .svg, .pdf and .png, GraphFileError if the file cannot be written.
        """
        format = figure_format(path)
        data, missing = drawn(self.composed, format)
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
        return _remark(missing, format)


def paper_figure(
    graph: AttributionGraph,
    annotations: Annotations = NO_ANNOTATIONS,
    width: str = Width.COLUMN,
    at_most: int = GROUPS,
    groups: Sequence[str] = (),
) -> PaperFigure:
    """The figure of a graph: its prompt, groups, targets, and the influence between them.

    width: "column" (85 mm) or "page" (174 mm).
    at_most: number of groups, the user's own included (`graphs.groups.overview`).
    groups: only these, of the annotations, or of those that are found without them.

    Raises FigureError for another width and for a group that there is not, CyclicGroups and
    TooManyFeatures as `graph_overview`.
    """
    figure_width(width)
    return overview_figure(graph, figure_overview(graph, annotations, at_most, groups), width)


def overview_figure(
    graph: AttributionGraph,
    shown: Overview,
    width: str = Width.COLUMN,
    marks: Mapping[int, Mark] | None = None,
    sentence: str = "",
) -> PaperFigure:
    """The figure of an overview.  Raises FigureError for another width.

    `marks` say what an intervention did to boxes, by their numbers; `sentence` ends the caption.
    """
    sheet = COLUMN if figure_width(width) == Width.COLUMN else PAGE
    return PaperFigure(compose(Shown(graph, shown, marks or {}, sentence), sheet, text_width))


def figure_overview(
    graph: AttributionGraph,
    annotations: Annotations = NO_ANNOTATIONS,
    at_most: int = GROUPS,
    groups: Sequence[str] = (),
) -> Overview:
    """The boxes of a figure.  Raises as `paper_figure`."""
    if not groups:
        return graph_overview(graph, annotations, at_most)
    known = annotations.rows(graph)
    if not known.keys() >= {*groups}:
        every = graph_overview(graph, annotations, at_most)
        boxes = [every.boxes[number] for number in every.of_kind(BoxKind.GROUP)]
        known = {box.name: box.rows for box in boxes}
    unknown = [name for name in groups if name not in known]
    if unknown:
        names = ", ".join(map(quoted, [*known][:_NAMED])) + (", …" if len(known) > _NAMED else "")
        there = f"the groups are {names}" if known else "the graph has no groups"
        raise FigureError(f"There is no group {quoted(unknown[0])}: {there}.")
    return overview(graph, {name: known[name] for name in dict.fromkeys(groups)})


def _remark(missing: frozenset[str], format: str) -> str:
    if not missing:
        return ""
    first = sorted(missing)[:_NAMED]
    what = f"{' '.join(first)}{' …' if len(missing) > len(first) else ''}"
    if format == "svg":
        return f"No font here has {what}: in the SVG they are text, which its readers' fonts show."
    return f"No font here has {what}, which are empty boxes in the file: write an SVG."
