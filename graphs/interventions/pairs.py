"""Pairs of prompts that differ in one thing, and files of such pairs.

    {"first": "…", "second": "…", "name": "…", "kind": "…", "target": " …", "against": " …"}

Each line of JSON is a pair.  Both prompts are required, the rest is optional: a name, the kind of
thing in which the two differ (a name, a group, a wrapper, a hint), and the target of both prompts:
a token, or the difference of two tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from graphs.core.records import Record
from graphs.disk.files import first_problem, json_text

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$"  # valid as a folder's name on every system


class PromptPair(Record):
    """Two prompts and the target that they are compared by."""

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
            raise ValueError("against needs a target, the token that it is compared with")
        return self

    @property
    def identifier(self) -> str:
        """Its name, or one made from a digest of its fields.

        >>> PromptPair(first="a", second="b").identifier
        'pair-8baa54bb'
        """
        text = f"{self.first}\0{self.second}\0{self.target}\0{self.against}"
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return self.name or f"pair-{digest[:8]}"


@dataclass(frozen=True)
class Line:
    """A line of the file: a pair, or the problem with it."""

    number: int  # from 1
    pair: PromptPair | None
    problem: str = ""  # one sentence


def read_pairs(path: Path | str) -> tuple[Line, ...]:
    """The lines of a file that are not blank, each with its pair or its problem.

    Raises GraphFileError if the file is missing, unreadable or too large.
    """
    return pairs_in(json_text(path))


def pairs_in(given: bytes) -> tuple[Line, ...]:
    """All lines that are not blank, each with its pair or its problem."""
    lines: list[Line] = []
    known: dict[str, int] = {}
    for number, text in enumerate(given.splitlines(), start=1):
        if not text.strip():
            continue
        try:
            pair = PromptPair.model_validate_json(text)
        except ValidationError as error:
            reason = first_problem(error).removeprefix("Value error, ")
            lines.append(Line(number, None, f"Line {number} is not a pair: {reason}."))
            continue
        earlier = known.setdefault(pair.identifier.lower(), number)
        if earlier != number:
            name = pair.identifier
            problem = f"Line {number} has the same name as line {earlier}, {name!r}: rename it."
            lines.append(Line(number, None, problem))
            continue
        lines.append(Line(number, pair))
    return tuple(lines)
