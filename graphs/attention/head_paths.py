"""Paths of heads: every head that a part of an edge crosses, one after the other.

The paths of an edge are a partition of it: with none (past all attention), one, two or more heads.
There are as many as there are subsets of layers, times heads, so only the strongest are listed; the
rest is what they lack of the edge.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from graphs.core.brief import Brief


@dataclass(frozen=True)
class HeadPath:
    """A part of an edge."""

    heads: tuple[tuple[int, int], ...]  # (layer, head) from the source on; none: past attention
    weight: float


@dataclass(frozen=True, repr=False)
class HeadPaths(Brief):
    """One edge, taken apart by paths of heads, and by the heads of every layer."""

    weight: float
    paths: tuple[HeadPath, ...]  # strongest first
    rest: float  # all other paths
    # Through this head, whatever comes before and after: with what goes past a layer's attention,
    # the heads of each layer add up to the edge; heads of several layers share paths.
    through: Float[ndarray, "layer head"]
