"""What every attention head writes into nodes: the second way in which a value adds up.

    value of a node - what biases of its own reading add = rest + Σ_layer Σ_head part[layer, head]

A head's part is the node's covector times all that the head has written at the node's position,
wherever it has taken it from; behind it no other attention is crossed.  The rest is what
embeddings, biases and MLPs have written there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.core.brief import Brief


def strongest_heads(
    parts: Float[ndarray, "layer head"], count: int
) -> list[tuple[int, int, float]]:
    """Layer, head and part of the largest parts in size, largest first; none that is 0.

    >>> strongest_heads(np.array([[0.0, -2.0], [1.0, 0.0]]), 3)
    [(0, 1, -2.0), (1, 0, 1.0)]
    """
    order = np.argsort(-np.abs(parts), axis=None, kind="stable")[:count].tolist()
    places = [divmod(at, parts.shape[1]) for at in order]
    return [(*place, float(parts[place])) for place in places if parts[place] != 0]


@dataclass(frozen=True, repr=False)
class HeadTotals(Brief):
    """Nodes with rows, taken apart by the heads that write at their positions."""

    row: Int[ndarray, " known"]  # of the graph, ascending
    parts: Float[ndarray, "known layer head"]
    rest: Float[ndarray, " known"]

    def require_consistent(self, n_nodes: int) -> None:
        """Raises ValueError if the parts do not fit together, as in a damaged file."""
        if np.any(np.diff(self.row) <= 0):
            raise ValueError("Rows of heads must ascend.")
        if len(self.row) and not 0 <= self.row[0] <= self.row[-1] < n_nodes:
            raise ValueError("A row of heads is outside the graph.")
        if not (np.all(np.isfinite(self.parts)) and np.all(np.isfinite(self.rest))):
            raise ValueError("What a head writes is not finite.")

    def take(self, nodes: Int[ndarray, " kept"]) -> HeadTotals:
        """Only those of these nodes, which ascend, by their new rows."""
        kept = np.isin(self.row, nodes)
        row = np.searchsorted(nodes, self.row[kept])
        return HeadTotals(row, self.parts[kept], self.rest[kept])

    def of(self, row: int) -> Float[ndarray, "layer head"] | None:
        """The parts of a node; None: they are not known."""
        place = int(np.searchsorted(self.row, row))
        known = place < len(self.row) and self.row[place] == row
        return self.parts[place] if known else None

    def strongest(self, row: int, count: int) -> list[tuple[int, int, float]]:
        """As `strongest_heads`, of what heads write into a node; none if it is not known."""
        parts = self.of(row)
        return [] if parts is None else strongest_heads(parts, count)
