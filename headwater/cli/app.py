"""The app with which commands register; `headwater.terminal.ending` defines exit codes."""

from __future__ import annotations

import typer

from headwater.terminal.ending import Commands

app = typer.Typer(
    cls=Commands,
    help="Circuit tracing and attribution graphs for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
