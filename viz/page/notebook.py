"""Notebook: a graph's page as the output of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from viz.page.page import page_text


@dataclass(frozen=True)
class NotebookPage:
    """A page that notebooks display as the value of a cell."""

    page: str
    height: int  # pixels

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.page)}" width="100%" height="{self.height}" '
            'style="border: 1px solid #d9dce1" allowfullscreen></iframe>'
        )

    def __repr__(self) -> str:
        return f"<page of {len(self.page):,} characters>"


def show(
    graph: AttributionGraph,
    *others: AttributionGraph,
    annotations: Annotations = NO_ANNOTATIONS,
    height: int = 760,
) -> NotebookPage:
    """The page of a graph, or of several to compare, in a frame of this height in pixels.

    `annotations` are those of the first graph.
    """
    compared = [(other, NO_ANNOTATIONS) for other in others]
    return NotebookPage(page_text([(graph, annotations), *compared]), height)
