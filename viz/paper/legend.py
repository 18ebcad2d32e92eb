"""The legend of a figure: a short arrow for each sign, and what widths and percentages are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from viz.paper.arrows import Sign
from viz.paper.curves import Route
from viz.paper.sheet import Measure, Sheet

SHARES = "width and %: share of all influence"
_WORDS = {Sign.RAISES: "raises", Sign.LOWERS: "lowers", Sign.MIXED: "mixed"}
_SAMPLE = 15.0  # length of an arrow
_APART = 9.0  # between two entries
_BESIDE = 3.0  # between an arrow and its word


@dataclass(frozen=True)
class Entry:
    """A short arrow with its word; without a sign only words.  Height 0 is their middle."""

    sign: Sign | None
    route: Route
    text: str
    text_x: float  # left end


def entries(signs: Sequence[Sign], sheet: Sheet, measure: Measure) -> list[Entry]:
    """The entries from left to right: those of the signs that occur, and what is left fits in."""
    found: list[Entry] = []
    x = 1.0
    for sign in signs:
        route = tuple((x + _SAMPLE * part / 3, 0.0) for part in range(4))
        text_x = x + _SAMPLE + _BESIDE
        found.append(Entry(sign, route, _WORDS[sign], text_x))
        x = text_x + measure(_WORDS[sign], sheet.small) + _APART
    if signs:
        found.append(Entry(None, (), SHARES, x))
    return found
