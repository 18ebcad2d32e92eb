"""The highest of very many scores, up to a share of their sum, without sorting them all.

Scores are not negative, so their bit patterns have the same order.  They are summed by their top 16
bits, which gives the narrow range of values in which the share is reached; only the scores in that
range are sorted.  Scores come in parts, twice, and are never all in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

RANGES = 2**15  # one for each value of the top 16 bits, the sign being 0


def leading(
    parts: Callable[[], Iterable[Float[ndarray, " part"]]], threshold: float
) -> Bool[ndarray, " score"]:
    """Mask of the fewest highest scores that reach a share of the total.

    `parts` gives the same scores in the same order each time it is called.  Of equal scores the
    first are taken; scores of 0 never are.

    >>> leading(lambda: [np.array([1.0, 5.0]), np.array([4.0, 0.0])], 0.85)
    array([False,  True,  True, False])
    """
    if threshold >= 1.0:  # rounding must not lose the smallest scores
        return _joined([part > 0 for part in parts()])
    sums = np.zeros(RANGES)
    for part in parts():
        sums += np.bincount(_range(part), weights=part, minlength=RANGES)
    higher = np.cumsum(sums[::-1])[::-1]
    total = higher[0]
    if threshold <= 0.0 or total <= 0.0:
        return _joined([np.zeros(len(part), dtype=bool) for part in parts()])
    # The highest range at which the share is reached.
    at = int(np.flatnonzero(higher / total >= threshold)[-1])
    above = higher[at + 1] if at + 1 < RANGES else 0.0
    kept: list[ndarray] = []
    places: list[ndarray] = []
    within: list[ndarray] = []
    start = 0
    for part in parts():
        where = _range(part)
        kept.append(where > at)
        places.append(start + np.flatnonzero(where == at))
        within.append(part[where == at])
        start += len(part)
    inside = np.concatenate(within)
    order = np.argsort(-inside, kind="stable")
    upto = (above + np.cumsum(inside[order])) / total
    result = _joined(kept)
    result[np.concatenate(places)[order[: np.searchsorted(upto, threshold) + 1]]] = True
    return result


def _joined(masks: list[ndarray]) -> ndarray:
    return np.concatenate([np.zeros(0, dtype=bool), *masks])


def _range(scores: Float[ndarray, " part"]) -> Int[ndarray, " part"]:
    return scores.astype(np.float64).view(np.int64) >> 48
