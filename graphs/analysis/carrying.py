"""Carrying: what is at some nodes, taken along all paths of a graph in proportion to shares.

    down:  reached[s] = Σ_t share[t, s] · (start[t] + reached[t])
    up:    value[t]   = own[t] + Σ_s share[t, s] · value[s]

with share[t, s] = |weights[t, s]| / totals[t].  Nodes are in topological order, so both are one
substitution: exact, with no iteration count and no tolerance.  Rows of one layer have no edges
among them, so they are taken in one step.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.core.graph import EDGES_AT_ONCE


def carry_down(
    start: Float[ndarray, " node *column"],
    weights: csr_array,
    totals: Float[ndarray, " node"],  # absolute sum of each row, what was dropped from it included
    ends: Bool[ndarray, " node"] | None = None,
    signed: bool = False,
) -> Float[ndarray, " node *column"]:
    """What reaches each node of what starts at nodes above it, without what starts there itself.

    Nodes in `ends` pass on what starts at them, but nothing of what reaches them.  With `signed`,
    shares have the signs of their weights.

    >>> weights = csr_array([[0.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    >>> carry_down(np.array([0.0, 0.0, 1.0]), weights, np.array([0.0, 2.0, 4.0]))
    array([1.  , 0.75, 0.  ])
    """
    reached = np.zeros(start.shape)
    for first, last in reversed(_runs(weights)):
        passed = start[first:last] + reached[first:last]
        if ends is not None:
            passed[ends[first:last]] = start[first:last][ends[first:last]]
        if not np.any(passed):
            continue
        shares, sources = _shares(weights, totals, first, last, signed)
        if last - first == 1:
            reached[sources] += np.multiply.outer(shares, passed[0])
        else:
            reached[:first] += _matrix(weights, shares, first, last).T @ passed
    return reached


def carry_up(
    own: Float[ndarray, " node *column"],
    weights: csr_array,
    totals: Float[ndarray, " node"],  # as for `carry_down`
) -> Float[ndarray, " node *column"]:
    """What each node has itself and gets from nodes below it, in proportion to its shares.

    >>> weights = csr_array([[0.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [1.0, 3.0, 0.0]])
    >>> carry_up(np.array([1.0, 0.0, 0.0]), weights, np.array([0.0, 4.0, 4.0]))
    array([1.   , 0.5  , 0.625])
    """
    value = own.astype(np.float64)
    for first, last in _runs(weights):
        shares, sources = _shares(weights, totals, first, last)
        if last - first == 1:
            value[first] += shares @ value[sources]
        else:
            value[first:last] += _matrix(weights, shares, first, last) @ value[:first]
    return value


def _runs(weights: csr_array) -> list[tuple[int, int]]:
    """First and last row of runs without edges among their rows; empty rows may be in none.

    Runs of fewer edges than there are nodes below are single rows: for them the step itself,
    which goes over all nodes below, would take longest.
    """
    start = weights.indptr
    filled = np.flatnonzero(np.diff(start))
    highest: list[int] = weights.indices[start[filled + 1] - 1].tolist()  # columns are sorted
    ends: list[int] = start.tolist()
    found: list[tuple[int, int]] = []
    members: list[int] = []

    def close() -> None:
        if members and ends[members[-1] + 1] - ends[members[0]] >= members[0]:
            found.append((members[0], members[-1] + 1))
        else:
            found.extend((row, row + 1) for row in members)
        members.clear()

    for row, source in zip(filled.tolist(), highest, strict=True):
        large = members and ends[row + 1] - ends[members[0]] > EDGES_AT_ONCE
        if members and (source >= members[0] or large):
            close()
        members.append(row)
    close()
    return found


def _shares(
    weights: csr_array, totals: Float[ndarray, " node"], first: int, last: int, signed: bool = False
) -> tuple[Float[ndarray, " edge"], Int[ndarray, " edge"]]:
    """Shares and sources of the edges of some rows."""
    edges = slice(weights.indptr[first], weights.indptr[last])
    shares = weights.data[edges].astype(np.float64)
    if not signed:
        np.abs(shares, out=shares)
    counts = np.diff(weights.indptr[first : last + 1])
    # Divided, not multiplied by 1 / total, which overflows for totals below 1e-308.
    shares /= np.repeat(np.where(totals[first:last] > 0, totals[first:last], 1.0), counts)
    return shares, weights.indices[edges]


def _matrix(
    weights: csr_array, shares: Float[ndarray, " edge"], first: int, last: int
) -> csr_array:
    """Shares of some rows in the nodes below them."""
    start = weights.indptr[first : last + 1]
    sources = weights.indices[start[0] : start[-1]]
    return csr_array((shares, sources, start - start[0]), shape=(last - first, first))
