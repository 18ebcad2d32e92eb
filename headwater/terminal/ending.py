"""Ending: whatever happens in a command, it ends with an exit code, and a failure in one sentence.

0    done
1    done, but a check failed
2    bad usage, bad input, or nothing left to write to
70   a fault of headwater itself (EX_SOFTWARE of sysexits.h)
130  interrupted
141  whoever read standard output has read enough
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from graphs.errors import HeadwaterError
from headwater.terminal.printing import remark
from headwater.terminal.readable import OutputError, readable_streams

FAULT, CLOSED = 70, 141
LONGEST = 1000  # letters of a sentence
TRACEBACK = "HEADWATER_TRACEBACK"  # environment variable that asks for it
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # torch's words


class Commands(TyperGroup):
    """All commands: what they print is readable, and how they fail one sentence."""

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command that the arguments name, and exit."""
        closed = _open_closed_streams()
        with readable_streams():
            if "stdout" in closed:
                complain("Standard output is closed: send it to /dev/null if nobody reads it.")
                sys.exit(2)
            code = self._code(arguments, settings)
        sys.exit(code)

    def _code(self, arguments: tuple[Any, ...], settings: dict[str, Any]) -> int:
        settings |= {"prog_name": "headwater", "standalone_mode": False}
        try:
            code = super().main(*arguments, **settings)
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit):  # rich and typer answer the first by the second
            return _without_output(CLOSED)
        except OutputError as error:
            complain(str(error))
            return _without_output(2)
        except Exception as error:
            return _failed(error)
        return code if isinstance(code, int) else 0


def complain(sentence: str) -> None:
    """Say on standard error what is wrong, if it takes anything."""
    if len(sentence) > LONGEST:  # it names something that is longer than anybody reads
        sentence = f"{sentence[: LONGEST // 2]} … {sentence[-LONGEST // 2 :]}"
    with suppress(OutputError, SystemExit):
        remark(f"headwater: {sentence}")


def _failed(error: Exception) -> int:
    """Say what went wrong; the exit code."""
    if isinstance(error, typer.Abort) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # typer takes the end of any file for that of its input
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    sentence = _expected(error)
    if sentence is None:
        said = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".: ")
        complain(
            f"This is a fault of headwater and not of what it was given ({said}): please report "
            f"it, with what the same command prints where {TRACEBACK} is 1."
        )
        return FAULT
    if sentence:  # else help has been printed
        complain(sentence)
    return 2


def _expected(error: Exception) -> str | None:
    """What is to be said of bad input, usage, memory and files; None for any other error."""
    if isinstance(error, HeadwaterError):
        return str(error)
    if hasattr(error, "format_message"):  # of typer, about usage
        return _about_usage(error)
    torch_lacks = isinstance(error, RuntimeError) and any(w in str(error) for w in _NO_MEMORY)
    if torch_lacks or isinstance(error, MemoryError):
        return "There is not enough memory for this: free some, or ask for less."
    if isinstance(error, OSError):
        what = error.strerror or str(error) or type(error).__name__
        return f"{what}." if error.filename is None else f"Cannot use {error.filename}: {what}."
    return None


def _about_usage(error: Any) -> str:
    said = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    if not said or context is None:
        return said
    return f"{said}{' See' if said.endswith('?') else ': see'} `{context.command_path} --help`."


def _without_output(code: int) -> int:
    """The code; what waits to be written is dropped, or Python would try again when it ends."""
    with suppress(OSError, ValueError):  # no stream of the system
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _open_closed_streams() -> list[str]:
    """Names of the standard streams that were closed; they lead nowhere now.

    Otherwise a file that is opened would take their place, and be written to by accident.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # stays open
    return closed
