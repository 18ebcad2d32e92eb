"""Options that name a file to write."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

OUTPUT = "Output"  # group of options in the help of a command
SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


def file_option(*names: str, help: str, panel: str = OUTPUT) -> Any:
    """An option that takes the name of a file; the name of a folder is refused."""
    return typer.Option(*names, help=help, parser=_file, metavar="FILE", rich_help_panel=panel)


def _file(name: str) -> Path:
    # A path forgets the separator at its end.
    if name.endswith(SEPARATORS):
        raise typer.BadParameter(f"{name} is a folder: give a file name.")
    return Path(name)
