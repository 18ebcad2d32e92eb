"""Tables for terminals: names and numbers are never cut, texts give way.

Which columns are texts is said where a table is made.
"""

from __future__ import annotations

from rich.console import RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text


class PlainTable(Table):
    """A table without lines.  Where there is no room, columns that are texts are shortened."""

    texts: frozenset[int]  # numbers of these columns

    def add_row(
        self,
        *cells: RenderableType | None,
        style: StyleType | None = None,
        end_section: bool = False,
    ) -> None:
        """Add a row; its texts stay on one line each."""
        for number, cell in enumerate(cells):
            if number in self.texts and isinstance(cell, Text):
                cell.no_wrap, cell.overflow = True, "ellipsis"
        super().add_row(*cells, style=style, end_section=end_section)


def plain_table(
    *headings: str, right: tuple[str, ...], texts: tuple[str, ...] = (), wraps: tuple[str, ...] = ()
) -> PlainTable:
    """An empty table; columns in `right` are aligned right.

    Where there is no room, the columns in `texts` are shortened, those in `wraps` take several
    lines; all others are kept whole.
    """
    table = PlainTable(box=None, header_style="dim", pad_edge=False)
    table.texts = frozenset(i for i, heading in enumerate(headings) if heading in texts)
    for heading in headings:
        # rich takes room from columns that may wrap; the cells of texts do not.
        gives = heading in texts or heading in wraps
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=not gives
        )
    return table
