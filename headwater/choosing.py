"""Words for settings: a call of the front door takes "always", not an enumeration."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from headwater.errors import ArgumentError

Word = TypeVar("Word", bound=StrEnum)


def one_of(kind: type[Word], name: str, value: str) -> Word:
    """A word as the value of an enumeration.  Raises ArgumentError for any other."""
    try:
        return kind(value)
    except ValueError as error:
        raise ArgumentError(f"{name} is one of {', '.join(kind)}, got {value!r}.") from error
