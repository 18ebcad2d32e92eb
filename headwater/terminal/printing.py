"""Printing: tables and lines for people, JSON for machines, remarks on standard error."""

from __future__ import annotations

import json
import sys

from headwater.terminal.readable import ReadableConsole
from viz.text.words import one_line

# Without a terminal there is no width: nothing is shortened or wrapped.
_WIDTH = None if sys.stdout is not None and sys.stdout.isatty() else 100_000
output = ReadableConsole(highlight=False, emoji=False, markup=False, width=_WIDTH)
errors = ReadableConsole(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)


def print_line(text: str, style: str = "") -> None:
    """One line on standard output, however long."""
    output.print(one_line(text), style=style, soft_wrap=True)


def print_plain(text: str) -> None:
    """Several lines on standard output, as they are."""
    sys.stdout.write(f"{text}\n")


def remark(text: str) -> None:
    """One line on standard error."""
    errors.print(one_line(text))


def print_json(data: dict[str, object]) -> None:
    """One line of JSON on standard output."""
    text = json.dumps(data, allow_nan=False)  # JSON knows no nan
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")  # the one control that it leaves
