"""Tables for terminals: names and numbers are never cut, texts give way.

Where a table is wider than the terminal, its texts are shortened to one line each.
"""

from __future__ import annotations

from rich.console import RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

# Headings of the columns that are shortened if there is no room; all others are kept whole.
GIVING_WAY = {"label", "promotes", "at", "token", "explained", "next token", "test", "model"}


class PlainTable(Table):
    """A table without lines, one line per row."""

    def add_row(
        self,
        *cells: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        """Add a row; its texts do not wrap."""
        for cell in cells:
            if isinstance(cell, Text):
                cell.no_wrap, cell.overflow = True, "ellipsis"
        super().add_row(*cells, style=style, end_section=end_section)


def plain_table(*headings: str, right: tuple[str, ...], texts: tuple[str, ...] = ()) -> PlainTable:
    """An empty table; columns in `right` are aligned right.

    `texts`: headings of more columns that give way.
    """
    table = PlainTable(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        gives = heading in GIVING_WAY or heading in texts
        # rich takes room from columns that may wrap first; their cells do not.
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=not gives
        )
    return table
