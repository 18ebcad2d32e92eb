"""Sparse rows: dense blocks from the sweep, thinned as they come, never nodes × nodes.

Of each row the largest weights are kept until they hold `kept_share` of the row's absolute sum.
The rest is kept as two numbers per row, its signed and its absolute sum, so that sums close.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import carry_down

RUN = 64  # neighbours in a sorted row that are summed together


class ThinRows(NamedTuple):
    """Some rows with only their largest weights."""

    counts: Int[ndarray, " row"]  # weights kept
    ends: Int[ndarray, " row"]  # where each row's weights end
    columns: Int[ndarray, " edge"]
    weights: Float[ndarray, " edge"]
    dropped: Float[ndarray, " row"]  # signed sum of what was not kept
    dropped_absolute: Float[ndarray, " row"]
    sums: Float[ndarray, " row"]  # of the whole rows
    totals: Float[ndarray, " row"]  # absolute sums of the whole rows

    def edges(self, row: int) -> slice:
        """Where a row's weights are."""
        return slice(self.ends[row] - self.counts[row], self.ends[row])

    def shares(self, row: int) -> tuple[Int[ndarray, " kept"], Float[ndarray, " kept"]]:
        """Sources and shares of one row."""
        total = self.totals[row] or 1.0  # a row of zeros has no edges
        return self.columns[self.edges(row)], np.abs(self.weights[self.edges(row)]) / total


@dataclass
class SparseRows:
    """Rows of a graph of `n_nodes` nodes, collected in any order."""

    n_nodes: int
    kept_share: float
    nodes: list[int] = field(default_factory=list)  # whose rows these are, in order of arrival
    parts: list[ThinRows] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)  # |sum - value| / absolute sum

    def add(self, nodes: list[int], part: ThinRows, values: Float[ndarray, " row"]) -> None:
        """Take in rows; `values` are what each must sum to."""
        self.nodes += nodes
        self.parts.append(part)
        miss = np.abs(part.sums - values)
        self.residuals += np.divide(miss, part.totals, out=miss, where=part.totals > 0).tolist()

    def matrix(self) -> csr_array:
        """weights[target, source]; rows that were not added are empty."""
        rows = self._rows_by_node()
        indptr = np.zeros(self.n_nodes + 1, dtype=np.int64)
        for node, part, row in rows:
            indptr[node + 1] = part.counts[row]
        data = np.concatenate([part.weights[part.edges(row)] for _, part, row in rows])
        indices = np.concatenate([part.columns[part.edges(row)] for _, part, row in rows])
        ends = indptr.cumsum()
        # scipy widens the columns to the type of the ends: 32 bits hold both up to 2³¹ edges.
        ends = ends.astype(np.int32) if ends[-1] < 2**31 else ends
        return csr_array((data, indices, ends), shape=(self.n_nodes, self.n_nodes))

    def influence(self, seed: Float[ndarray, " node"]) -> Float[ndarray, " node"]:
        """Influence over the rows so far (`graphs.influence`), what was dropped counted in."""
        return carry_down(
            seed, ((node, *part.shares(row)) for node, part, row in reversed(self._rows_by_node()))
        )

    def dropped(self) -> Float[ndarray, " node"]:
        """Signed sum of the weights left out of each row; 0 for nodes without one."""
        return self._spread([part.dropped for part in self.parts])

    def dropped_absolute(self) -> Float[ndarray, " node"]:
        """Sum of their sizes."""
        return self._spread([part.dropped_absolute for part in self.parts])

    def expanded(self) -> Bool[ndarray, " node"]:
        """Which nodes have a row."""
        mask = np.zeros(self.n_nodes, dtype=bool)
        mask[self.nodes] = True
        return mask

    def _rows_by_node(self) -> list[tuple[int, ThinRows, int]]:
        """Node, part and place of every row, in the order of nodes."""
        places = [(part, row) for part in self.parts for row in range(len(part.counts))]
        pairs = zip(self.nodes, places, strict=True)
        return sorted(((node, *place) for node, place in pairs), key=lambda found: found[0])

    def _spread(self, parts: list[ndarray]) -> Float[ndarray, " node"]:
        column = np.zeros(self.n_nodes)
        column[self.nodes] = np.concatenate(parts)
        return column


def thin(block: Float[ndarray, "row column"], share: float) -> ThinRows:
    """Rows with the fewest weights that hold `share` of each row's absolute sum."""
    sizes = np.abs(block)
    sums, totals = block.sum(1, dtype=np.float64), sizes.sum(1, dtype=np.float64)
    kept = largest(sizes, totals, share)
    counts = np.count_nonzero(kept, axis=1)
    ends = counts.cumsum()
    weights = block[kept]
    columns = np.broadcast_to(np.arange(block.shape[1], dtype=np.int32), block.shape)[kept]
    # reduceat gives the entry itself for an empty row; such rows hold nothing.
    starts, padded = ends - counts, np.append(weights, 0)
    held = np.add.reduceat(padded, starts, dtype=np.float64) * (counts > 0)
    held_sizes = np.add.reduceat(np.abs(padded), starts, dtype=np.float64) * (counts > 0)
    return ThinRows(
        counts=counts,
        ends=ends,
        columns=columns,
        weights=weights,
        dropped=sums - held,
        dropped_absolute=np.maximum(totals - held_sizes, 0.0),
        sums=sums,
        totals=totals,
    )


def largest(
    sizes: Float[ndarray, "row column"], totals: Float[ndarray, " row"], share: float
) -> Bool[ndarray, "row column"]:
    """The fewest entries per row that hold `share` of its total; ties at the edge stay.

    >>> largest(np.array([[5.0, 0.0, 1.0, 4.0]]), np.array([10.0]), 0.85)
    array([[ True, False, False,  True]])
    """
    if share >= 1.0:
        return sizes > 0
    n_rows, n_columns = sizes.shape
    rising = np.zeros((n_rows, n_columns + -n_columns % RUN), dtype=sizes.dtype)
    rising[:, :n_columns] = sizes
    rising.sort(axis=1)
    # The first entry that no longer fits under the budget: first its run, then its place there.
    runs = rising.reshape(n_rows, -1, RUN)
    budget = ((1.0 - share) * totals)[:, None]
    up_to = runs.sum(2, dtype=np.float64).cumsum(1)
    run = np.minimum((up_to <= budget).sum(1), runs.shape[1] - 1)
    row = np.arange(n_rows)
    below = np.where(run > 0, up_to[row, run - 1], 0.0)[:, None]
    within = below + runs[row, run].cumsum(1, dtype=np.float64)
    place = np.minimum((within <= budget).sum(1), RUN - 1)
    tiny = np.finfo(sizes.dtype).smallest_subnormal  # zeros are never kept
    return sizes >= np.maximum(runs[row, run, place], tiny)[:, None]
