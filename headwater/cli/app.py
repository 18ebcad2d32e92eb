"""The app with which commands register; `headwater.terminal.ending` defines exit codes.

A command's module is imported when the command is run, or asked for its own help: all of them, with
what they need, take longer to import than most commands take to run.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand
from typer.main import get_command_from_info, get_group_from_info

from headwater.arguments.usage import UsageError
from headwater.cli.commands import PANELS
from headwater.terminal.ending import Commands
from headwater.terminal.printing import print_line, print_plain

MOST = 10**9  # below what overflows in libraries


class ListedCommands(Commands):
    """All commands, of which only the one that is run is imported."""

    def __init__(self, **attributes: Any) -> None:
        listed = [
            TyperCommand(name, short_help=one.summary, rich_help_panel=panel)
            for panel, commands in PANELS.items()
            for name, one in commands.items()
        ]
        super().__init__(**attributes | {"commands": listed, "rich_markup_mode": _markup()})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without arguments the help is shown, and the exit code is that of bad usage."""
        if not args and not ctx.resilient_parsing:
            text = ctx.get_help()  # empty on a terminal, where it has been drawn
            if text:
                print_plain(text)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, with its options, and the rest of them."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else command(name), rest


class LimitedCommand(TyperCommand):
    """A command whose whole numbers are small enough for every library that they go through."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.  Raises UsageError for a number beyond the limit."""
        for option in self.params:
            given = ctx.params.get(option.name)
            for value in given if isinstance(given, list | tuple) else (given,):
                if isinstance(value, int) and abs(value) > MOST:
                    raise UsageError(
                        f"{option.opts[0]} is between -{MOST:,} and {MOST:,}, got {value:,}."
                    )
        return super().invoke(ctx)


app = typer.Typer(
    cls=ListedCommands,
    help="Circuit tracing and attribution graphs for language models.",
    pretty_exceptions_enable=False,
)


@cache
def command(name: str) -> Any:
    """One command with its options."""
    module = next(commands[name].module for commands in PANELS.values() if name in commands)
    import_module(f"headwater.cli.{module}")
    how: Any = {"pretty_exceptions_short": False, "rich_markup_mode": _markup()}
    for group in app.registered_groups:
        if group.name == name and group.typer_instance is not None:
            for info in group.typer_instance.registered_commands:
                info.cls = LimitedCommand
            return get_group_from_info(group, suggest_commands=True, **how)
    info = next(info for info in app.registered_commands if info.name == name)
    info.cls = LimitedCommand
    return get_command_from_info(info, **how)


def _markup() -> Literal["rich"] | None:
    """How help is drawn: in panels on a terminal, elsewhere plainly."""
    return "rich" if sys.stdout is not None and sys.stdout.isatty() else None


def _show_version(asked: bool) -> bool:
    if asked:
        print_line(f"headwater {version('headwater')}")
        raise typer.Exit
    return asked


@app.callback()
def _headwater(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of headwater itself."""
