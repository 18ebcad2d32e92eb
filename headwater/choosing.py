"""Words and numbers for settings: a call of the front door takes "always", not an enumeration."""

from __future__ import annotations

from enum import StrEnum
from math import isfinite
from typing import TypeVar

from headwater.errors import ArgumentError

Word = TypeVar("Word", bound=StrEnum)


class AttentionKept(StrEnum):
    """What a trace keeps of attention."""

    NONE = "none"
    TOTALS = "totals"  # what heads write into nodes
    EDGES = "edges"  # the same, the heads of edges, and looks
    HEADS = "heads"  # head nodes
    SCORES = "scores"  # the same, and what makes them look where they look

    @property
    def has_totals(self) -> bool:
        """Whether what heads write into nodes is kept."""
        return self in (AttentionKept.TOTALS, AttentionKept.EDGES)


def one_of(kind: type[Word], name: str, value: str) -> Word:
    """A word as the value of an enumeration.  Raises ArgumentError for any other."""
    try:
        return kind(value)
    except ValueError as error:
        raise ArgumentError(f"{name} is one of {', '.join(kind)}, got {value!r}.") from error


def in_bytes(gibibytes: float | None) -> int | None:
    """A limit on memory as the library takes it.  Raises ArgumentError for no number."""
    if gibibytes is None:
        return None
    if not isfinite(gibibytes):
        raise ArgumentError(f"memory is a number of GiB, got {gibibytes}.")
    return int(gibibytes * 2**30)
