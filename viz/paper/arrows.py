"""Arrows: which flows of an overview a figure shows, and with which sign.

Shown are flows of at least 3 % of all influence, and the strongest into and out of every box, so
that none stands alone.  From everything else, which is no box of its own right, only flows of at
least 5 % are.  An arrow raises or lowers if at least two thirds of its influence do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from graphs.core.brief import Brief
from graphs.groups.overview import BoxKind, Overview

LEAST, LEAST_OF_REST = 0.03, 0.05  # of all influence
THINNEST, WIDEST = 0.6, 3.6  # in points
CLEAR = 1 / 3  # of a flow: the rest of its signed sum, from which two thirds have one sign


class Sign(StrEnum):
    """What an arrow does to its target."""

    RAISES = "raises"
    LOWERS = "lowers"
    MIXED = "mixed"


@dataclass(frozen=True)
class Arrow:
    """A flow from one box of an overview to another."""

    source: int
    target: int
    share: float  # of all influence
    sign: Sign


@dataclass(frozen=True, repr=False)
class Arrows(Brief):
    """The arrows of a figure, sources of lower boxes first."""

    shown: tuple[Arrow, ...]
    total: int  # flows between boxes
    carried: float  # share of the influence along all of these that the shown ones have

    @property
    def widths(self) -> list[float]:
        """Widths of the shown arrows, by their shares: the strongest is widest."""
        most = max((one.share for one in self.shown), default=1.0)
        return [max(THINNEST, WIDEST * one.share / most) for one in self.shown]

    @property
    def sentence(self) -> str:
        """How many arrows are shown, and how much they carry."""
        if not self.total:
            return "No influence between boxes."
        noun = "arrow" if self.total == 1 else "arrows"
        return (
            f"{len(self.shown)} of {self.total} {noun}, with {self.carried:.0%} of the influence "
            "between boxes."
        )


def drawn_arrows(overview: Overview) -> Arrows:
    """The arrows of an overview that a figure shows."""
    flow = overview.flow
    chosen = flow >= LEAST
    rest = overview.of_kind(BoxKind.MORE)
    chosen[:, rest] = flow[:, rest] >= LEAST_OF_REST
    named = flow.copy()
    named[:, rest] = 0.0
    for box in range(len(flow)):
        if named[box].any():
            chosen[box, int(np.argmax(named[box]))] = True
        if named[:, box].any():
            chosen[int(np.argmax(named[:, box])), box] = True
    chosen &= flow > 0
    targets, sources = np.nonzero(chosen)
    shown = tuple(
        Arrow(source, target, float(flow[target, source]), _sign(overview, target, source))
        for target, source in zip(targets.tolist(), sources.tolist(), strict=True)
    )
    whole = float(flow.sum())
    carried = float(flow[chosen].sum()) / whole if whole else 0.0
    return Arrows(shown, int(np.count_nonzero(flow)), carried)


def _sign(overview: Overview, target: int, source: int) -> Sign:
    flow, net = float(overview.flow[target, source]), float(overview.net[target, source])
    if abs(net) < CLEAR * flow:
        return Sign.MIXED
    return Sign.RAISES if net > 0 else Sign.LOWERS
