"""Readable: control sequences in printed or logged text are shown, never executed by the terminal.

Names, labels and tokens come from others' files; a control sequence in one could write to the
clipboard, or hide or replace earlier output.  So all text passes `viz.text.words.readable`: what
rich draws before it is styled, and everything else, logs and warnings of libraries included, when
it is written.
"""

from __future__ import annotations

import codecs
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOBase, TextIOWrapper
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from graphs.errors import HeadwaterError
from viz.text.words import readable

NAMES = {"stdout": "standard output", "stderr": "standard error"}
_CURSOR_UP = "\x1b[A"  # libraries' progress bars write it alone, and put a return in front
_MARKS = dict.fromkeys(map(ord, "\u2068\u2069"))  # of direction: first strong isolate, its end
_PLAIN = {  # replacements of our own characters in encodings that lack them
    **dict.fromkeys("\u2068\u2069", ""),
    **dict.fromkeys("“”", '"'),
    **dict.fromkeys("−–·", "-"),
    "…": "...",
    "→": "->",
    "↔": "<->",
    "×": "x",
    "⏎": "\\n",
    "␣": " ",
    "±": "+-",
}


class OutputError(HeadwaterError):
    """Standard output or error cannot be written to."""


class ReadableConsole(Console):
    """A console that makes text readable; styles and cursor movements are rich's own.

    What is no terminal gets the words alone: no spaces at the ends of lines, by which tables are
    filled, and no marks of direction, by which terminals keep quoted texts apart.
    """

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich prints."""
        if self.is_terminal:
            super().print(*objects, **settings)
            return
        with self.capture() as captured:
            super().print(*objects, **settings)
        lines = captured.get().translate(_MARKS).split("\n")
        self.file.write("\n".join(line.rstrip(" ") for line in lines))

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(readable(segment.text), segment.style)


class Stream:
    """A stream that raises OutputError when it cannot be written to."""

    def __init__(self, stream: TextIOBase, name: str) -> None:
        self._stream, self._name = stream, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._explained():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._explained():
            self._stream.flush()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # the reader closed it
            raise
        except OSError as error:
            raise OutputError(f"Cannot write to {self._name}: {error.strerror}.") from error


class ReadableStream(Stream):
    """A stream that makes all text readable."""

    @property
    def rich_proxied_file(self) -> Stream:
        """Where rich writes; our consoles make text readable themselves."""
        return Stream(self._stream, self._name)

    def write(self, text: str) -> int:
        start = text if text == _CURSOR_UP else "\r" * text.startswith("\r")
        super().write(start + readable(text.removeprefix(start)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def readable_streams() -> Iterator[None]:
    """Replace standard output and error by readable streams, for loggers too."""
    codecs.register_error("headwater", _plainly)
    plain = {name: getattr(sys, name) for name in NAMES}
    for stream in plain.values():
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="headwater")
    guarded = {name: ReadableStream(stream, NAMES[name]) for name, stream in plain.items()}
    _exchange(plain, guarded)
    try:
        yield
    finally:
        _exchange(guarded, plain)


def _exchange(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Replace old streams by new ones in `sys` and in logging handlers."""
    for name, stream in new.items():
        setattr(sys, name, stream)
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            for name, stream in old.items():
                if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
                    handler.setStream(new[name])


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """The replacement of characters that an encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    written = (_PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in lacking)
    return "".join(written), error.end
