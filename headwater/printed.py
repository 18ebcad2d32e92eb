"""What a command would print, as the representation of a value in Python."""

from __future__ import annotations

from html import escape
from io import StringIO

from rich.console import RenderableType

from headwater.terminal.readable import ReadableConsole

WIDE = 100  # columns


def printed(shown: RenderableType) -> str:
    """The text of tables and sentences, for a notebook or an interpreter."""
    written = StringIO()
    console = ReadableConsole(
        file=written,
        highlight=False,
        emoji=False,
        markup=False,
        width=WIDE,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
    )
    console.print(shown)
    return written.getvalue().rstrip("\n")


class Printed:
    """A value of which `print` and notebooks show the tables, and the interpreter a few words."""

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
