"""Heads of two graphs of one model: how much each writes, in either prompt.

    overlap = Σ min(a, b) / Σ max(a, b)

over all heads at aligned positions, a and b being the influence that a head writes into nodes there
(`graphs.analysis.head_shares`), as a share of what all heads write; 0 where a prompt lacks the
position.  The null is the overlap when heads of the second graph are exchanged at random for heads
of the same layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.head_shares import written_shares
from graphs.comparison.compare import PERMUTATIONS, Score
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph


@dataclass(frozen=True, repr=False)
class HeadOverlap(Brief):
    """What heads write in two graphs, as shares of what all heads write."""

    first: Float[ndarray, "layer head pos"]  # at the positions of the first prompt
    second: Float[ndarray, "layer head pos"]  # the same, at aligned positions
    overlap: Score

    def changed(self, count: int) -> list[tuple[int, int, int, float, float]]:
        """Layer, head, position and both shares, of heads that differ most."""
        order = np.argsort(-np.abs(self.second - self.first), axis=None, kind="stable")[:count]
        places = np.stack(np.unravel_index(order, self.first.shape), 1).tolist()
        found = [
            (*place, float(self.first[tuple(place)]), float(self.second[tuple(place)]))
            for place in places
        ]
        return [one for one in found if one[3] != one[4]]


def head_overlap(
    first: AttributionGraph,
    second: AttributionGraph,
    positions: Int[ndarray, " pos"],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> HeadOverlap | None:
    """Compare what heads write; None if either graph does not know, or they are of two models.

    `positions`: in the second prompt, for each of the first; -1: none.
    """
    one, other = written_shares(first), written_shares(second)
    if one is None or other is None or one.shape[:2] != other.shape[:2]:
        return None
    one, other = one / (one.sum() or 1.0), other / (other.sum() or 1.0)
    aligned = np.zeros_like(one)
    aligned[:, :, positions >= 0] = other[:, :, positions[positions >= 0]]
    apart = float(other.sum() - aligned.sum())  # at positions that the first prompt lacks
    rng = np.random.default_rng(seed)
    null = sorted(_overlap(one, _exchanged(aligned, rng), apart) for _ in range(permutations))
    return HeadOverlap(one, aligned, Score(_overlap(one, aligned, apart), tuple(null)))


def _overlap(one: ndarray, other: ndarray, apart: float) -> float:
    larger = float(np.maximum(one, other).sum()) + apart
    return float(np.minimum(one, other).sum()) / larger if larger > 0 else float("nan")


def _exchanged(shares: ndarray, rng: np.random.Generator) -> ndarray:
    """Heads of every layer in random order."""
    return np.stack([layer[rng.permutation(len(layer))] for layer in shares])
