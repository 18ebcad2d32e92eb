"""Pairs: two prompts that differ in one thing, and a file of many.

    {"first": "…", "second": "…", "name": "…", "kind": "…", "target": " …", "against": " …"}

A line of JSON is a pair.  Both prompts are needed, the rest may be left out: a name of its own,
the kind of thing in which the two differ (a name, a group, a wrapper, a hint), and what is asked
of both prompts, a token or why that token and not another.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from graphs.core.records import Record
from graphs.disk.files import first_problem, json_text

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"  # of a folder, on every system


class PromptPair(Record):
    """Two prompts and what is asked of them."""

    first: str = Field(min_length=1)
    second: str = Field(min_length=1)
    name: str = Field(default="", pattern=rf"{_NAME}|^$")
    kind: str = Field(default="", max_length=100)
    target: str | None = Field(default=None, min_length=1)
    against: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _makes_sense(self) -> PromptPair:
        if self.first == self.second:
            raise ValueError("the two prompts are the same")
        if self.against is not None and self.target is None:
            raise ValueError("against needs a target, the token that wins over it")
        return self

    @property
    def called(self) -> str:
        """Its name, or one made of its prompts.

        >>> PromptPair(first="a", second="b").called
        'pair-8baa54bb'
        """
        text = f"{self.first}\0{self.second}\0{self.target}\0{self.against}"
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.name or f"pair-{digest[:8]}"


@dataclass(frozen=True)
class Line:
    """A line of the file: a pair, or why it is none."""

    number: int  # from 1
    pair: PromptPair | None
    problem: str = ""  # one sentence


def read_pairs(path: Path | str) -> tuple[Line, ...]:
    """All lines that are not blank; one that is no pair says why, and the others are read.

    Raises GraphFileError if the file is missing, unreadable or too large.
    """
    lines: list[Line] = []
    known: dict[str, int] = {}
    for number, text in enumerate(json_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        try:
            pair = PromptPair.model_validate_json(text)
        except ValidationError as error:
            reason = first_problem(error).removeprefix("Value error, ")
            lines.append(Line(number, None, f"Line {number} is no pair: {reason}."))
            continue
        earlier = known.setdefault(pair.called.lower(), number)
        if earlier != number:
            problem = f"Line {number} is called {pair.called!r} as line {earlier} is: name it anew."
            lines.append(Line(number, None, problem))
            continue
        lines.append(Line(number, pair))
    return tuple(lines)
