"""Ending: every command ends with a defined exit code, and a failure prints one sentence.

0    done
1    done, but a check failed
2    bad usage, bad input, or output that cannot be written
70   an internal error (EX_SOFTWARE of sysexits.h)
130  interrupted
141  the reader of standard output closed it (SIGPIPE)
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from graphs.errors import HeadwaterError
from headwater.terminal.printing import remark
from headwater.terminal.readable import OutputError, readable_streams

INTERNAL, INTERRUPTED, CLOSED = 70, 130, 141
LONGEST = 1000  # characters of a message
TRACEBACK = "HEADWATER_TRACEBACK"  # environment variable that enables it
RENAMED = {  # options of the previous version, which still work
    "--push": "--steer",
    "--context-only": "--prefix",
    "--carriers": "--mediators",
}
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # torch's words


class Commands(TyperGroup):
    """All commands; their output is readable, and their failures are one sentence."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command that the arguments name, and exit."""
        closed = _open_closed_streams()
        with readable_streams():
            if "stdout" in closed:
                print_error(
                    "Standard output is closed: redirect it to /dev/null if it is not needed."
                )
                sys.exit(2)
            code = self._code(arguments, settings)
        sys.exit(code)

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Read the arguments."""
        with _interruptible():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _interruptible():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with former options renamed up to a `--`."""
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [*map(_renamed, args[:end]), *args[end:]])

    def _code(self, arguments: tuple[Any, ...], settings: dict[str, Any]) -> int:
        settings |= {"prog_name": "headwater", "standalone_mode": False}
        try:
            code = super().main(*arguments, **settings)
            sys.stdout.flush()
        except BrokenPipeError:
            return _without_output(CLOSED)
        except SystemExit as ended:  # typer's, by which rich answers a closed pipe too
            return _without_output(CLOSED) if ended.code else 0
        except OutputError as error:
            print_error(str(error))
            return _without_output(2)
        except Exception as error:
            return _failed(error)
        return code if isinstance(code, int) else 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a command with one line."""
    try:
        yield
    except KeyboardInterrupt:
        print_error("Interrupted.")
        raise typer.Exit(INTERRUPTED) from None


def _renamed(argument: str) -> str:
    option, equals, value = argument.partition("=")
    return f"{RENAMED.get(option, option)}{equals}{value}"


def print_error(sentence: str) -> None:
    """Print an error on standard error, if that can be written to."""
    if len(sentence) > LONGEST:  # as with a very long file name
        sentence = f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    with suppress(OutputError, SystemExit):
        remark(f"headwater: {sentence}")


def _failed(error: Exception) -> int:
    """Print what went wrong; returns the exit code."""
    if isinstance(error, typer.Abort) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # typer turns any EOFError into Abort
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    sentence = _expected(error)
    if sentence is None:
        what = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".: ")
        print_error(
            f"Internal error of headwater ({what}): please report it, with the output of the same "
            f"command under {TRACEBACK}=1."
        )
        return INTERNAL
    if sentence:  # empty if help has been printed
        print_error(sentence)
    return 2


def _expected(error: Exception) -> str | None:
    """The message for bad input, usage, memory and files; None for any other error."""
    if isinstance(error, HeadwaterError):
        return str(error)
    if hasattr(error, "format_message"):  # of typer, about usage
        return _about_usage(error)
    torch_lacks = isinstance(error, RuntimeError) and any(w in str(error) for w in _NO_MEMORY)
    if torch_lacks or isinstance(error, MemoryError):
        return "There is not enough memory: free some, or choose smaller limits."
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return f"{what}." if error.filename is None else f"Cannot use {error.filename}: {what}."
    return None


def _about_usage(error: Any) -> str:
    message = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return (
        f"{message}{' See' if message.endswith('?') else ': see'} `{context.command_path} --help`."
    )


def _without_output(code: int) -> int:
    """Returns the code; drops buffered output, which Python would try to write again at exit."""
    with suppress(OSError, ValueError):  # not a stream of the system
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _open_closed_streams() -> list[str]:
    """Names of the standard streams that were closed, which now lead to the null device.

    Otherwise the next file that is opened would get their number, and be written to by accident.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # stays open
    return closed
