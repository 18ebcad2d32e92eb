"""Sparse rows: dense blocks from the sweep, thinned as they come, never nodes × nodes.

Of each row the largest weights are kept until they hold `kept_share` of the row's absolute sum.
The rest is kept as two numbers per row, its signed and its absolute sum, so that sums close.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.sparse import csr_array


@dataclass
class SparseRows:
    """Rows of a graph of `n_nodes` nodes, collected in any order."""

    n_nodes: int
    kept_share: float
    columns: dict[int, ndarray] = field(default_factory=dict)  # node → columns of its weights
    weights: dict[int, ndarray] = field(default_factory=dict)
    dropped: dict[int, float] = field(default_factory=dict)
    dropped_absolute: dict[int, float] = field(default_factory=dict)
    residuals: dict[int, float] = field(default_factory=dict)  # |sum - value| / absolute sum

    def add(
        self, nodes: list[int], block: Float[ndarray, "row column"], values: Float[ndarray, " row"]
    ) -> None:
        """Take in complete rows; `values` are what each row must sum to."""
        sums, sizes = block.sum(1, dtype=np.float64), np.abs(block)
        totals = sizes.sum(1, dtype=np.float64)
        kept = largest(sizes, totals, self.kept_share)
        for row, node in enumerate(nodes):
            columns = np.flatnonzero(kept[row])
            weights = block[row, columns]
            self.columns[node] = columns.astype(np.int32)
            self.weights[node] = weights
            self.dropped[node] = sums[row] - weights.sum(dtype=np.float64)
            lost = totals[row] - np.abs(weights).sum(dtype=np.float64)
            self.dropped_absolute[node] = max(0.0, lost)
            miss = abs(sums[row] - float(values[row]))
            self.residuals[node] = miss / totals[row] if totals[row] > 0 else miss

    def matrix(self) -> csr_array:
        """weights[target, source]; rows that were not added are empty."""
        nodes = sorted(self.columns)
        counts = np.zeros(self.n_nodes + 1, dtype=np.int64)
        counts[np.array(nodes) + 1] = [len(self.columns[node]) for node in nodes]
        data = np.concatenate([self.weights[node] for node in nodes])
        indices = np.concatenate([self.columns[node] for node in nodes])
        return csr_array((data, indices, counts.cumsum()), shape=(self.n_nodes, self.n_nodes))

    def spread(self, values: dict[int, float]) -> Float[ndarray, " node"]:
        """One number per node, 0 for nodes without a row."""
        column = np.zeros(self.n_nodes)
        column[list(values)] = list(values.values())
        return column

    def expanded(self) -> Bool[ndarray, " node"]:
        """Which nodes have a row."""
        mask = np.zeros(self.n_nodes, dtype=bool)
        mask[list(self.columns)] = True
        return mask


def largest(
    sizes: Float[ndarray, "row column"], totals: Float[ndarray, " row"], share: float
) -> Bool[ndarray, "row column"]:
    """The fewest entries per row that hold `share` of its total; ties at the edge stay.

    >>> largest(np.array([[5.0, 0.0, 1.0, 4.0]]), np.array([10.0]), 0.85)
    array([[ True, False, False,  True]])
    """
    if share >= 1.0:
        return sizes > 0
    rising = np.sort(sizes, axis=1)
    below = np.cumsum(rising, axis=1, dtype=np.float64)
    count = (below <= (1.0 - share) * totals[:, None]).sum(1)
    edge = rising[np.arange(len(sizes)), np.minimum(count, sizes.shape[1] - 1)]
    return (sizes >= edge[:, None]) & (sizes > 0)
