"""The text to trace: on the command line, in a file, or on standard input.

An argument has at most 128 KiB on Linux, and command substitution in a shell strips line breaks at
the end; a file has neither limit.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from graphs.disk.files import reason
from headwater.arguments.usage import UsageError

LARGEST_PROMPT = 2**22  # bytes: more than a million tokens
STANDARD_INPUT, INPUT = "-", "standard input"  # as it is given, and as messages name it
Prompted = Annotated[
    str | None,
    typer.Argument(
        help="Text to trace, or - for standard input; -- precedes a text that starts with a dash."
    ),
]
PromptFile = Annotated[
    str | None,
    typer.Option(
        help="Read the text from this UTF-8 file (- for standard input), without the line break "
        "at its end."
    ),
]


def given_prompt(prompt: str | None, file: str | None) -> str:
    """The text, from argument, file or standard input.  Raises UsageError unless one is given."""
    if prompt is not None and file is not None:
        raise UsageError("The prompt is given twice: leave out --prompt-file or the argument.")
    if prompt is None and file is None:
        raise UsageError("There is no prompt: give a text, or a file with --prompt-file.")
    if prompt is not None and prompt != STANDARD_INPUT:
        return prompt
    # An editor or `echo` ends the last line with a break that is not part of the prompt.
    return re.sub(r"\r?\n\Z", "", _text(*_read(STANDARD_INPUT if file is None else file)))


def standard_input(path: Path) -> str | None:
    """The text on standard input if the path asks for it.  Raises UsageError for no text."""
    return _text(*_read(STANDARD_INPUT)) if str(path) == STANDARD_INPUT else None


def _read(source: str) -> tuple[str, bytes]:
    """Name of the source for messages, and its bytes, one more than allowed at most."""
    try:
        if source == STANDARD_INPUT:
            return INPUT, sys.stdin.buffer.read(LARGEST_PROMPT + 1)
        with Path(source).open("rb") as file:
            return source, file.read(LARGEST_PROMPT + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UsageError(f"Cannot read {source}: {reason(error)}.") from error


def _text(name: str, content: bytes) -> str:
    if len(content) > LARGEST_PROMPT:
        most = LARGEST_PROMPT // 2**20
        raise UsageError(f"The text in {name} has more than {most} MiB: shorten it.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # as in UTF-16
        raise UsageError(f"What is in {name} is not a text in UTF-8: give one that is.")
    return text
