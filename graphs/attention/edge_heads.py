"""The heads that carry each edge, by the first attention that it crosses.

    weight of an edge = bypass + Σ_layer Σ_head part[layer, head]

A source stays at its position until some head's attention carries it on; every path has one such
first head, or crosses none, so the parts are a partition.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.head_shares import head_shares
from graphs.core.attended import KEPT_HEADS, EdgeParts
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.head_totals import strongest_heads


@dataclass(frozen=True, repr=False)
class EdgeHeads(Brief):
    """Edges of a graph, taken apart by head."""

    target: Int[ndarray, " edge"]  # rows of the graph
    source: Int[ndarray, " edge"]
    weight: Float[ndarray, " edge"]
    bypass: Float[ndarray, " edge"]  # through no attention
    parts: Float[ndarray, "edge layer head"]  # through this head's attention first

    @property
    def miss(self) -> float:
        """Largest difference of an edge from the sum of its parts.

        As of conservation, it is relative to the sizes of all edges of the same target.
        """
        total = self.parts.sum((1, 2), dtype=np.float64) + self.bypass
        sizes = np.bincount(self.target, np.abs(self.weight))[self.target]
        difference = np.abs(total - self.weight)
        shares = np.divide(difference, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        return float(shares.max(initial=0.0))

    def strongest(self, edge: int, count: int) -> list[tuple[int, int, float]]:
        """Layer, head and part of the heads that carry most of an edge, most first."""
        return strongest_heads(self.parts[edge], count)

    def kept(self, count: int = KEPT_HEADS) -> EdgeParts:
        """The strongest heads of each edge, as a file keeps them; edges must ascend."""
        n_edges, _, n_heads = self.parts.shape
        flat = self.parts.reshape(n_edges, -1)
        order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :count]
        part = np.take_along_axis(flat, order, 1)
        there = part != 0
        return EdgeParts(
            target=self.target.astype(np.int32),
            source=self.source.astype(np.int32),
            bypass=self.bypass.astype(np.float32),
            rest=(flat.sum(1, dtype=np.float64) - part.sum(1, dtype=np.float64)).astype(np.float32),
            layer=np.where(there, order // n_heads, -1).astype(np.int16),
            head=np.where(there, order % n_heads, -1).astype(np.int16),
            part=part.astype(np.float32),
        )

    def take(self, edges: Int[ndarray, " kept"]) -> EdgeHeads:
        """Only these edges, in this order."""
        return EdgeHeads(**{name: column[edges] for name, column in vars(self).items()})

    def carried(self, graph: AttributionGraph) -> tuple[Float[ndarray, "layer head"], float]:
        """Of all influence along these edges, the shares that cross each head first, and none."""
        found = head_shares(graph, self.kept(self.parts[:1].size))
        return found.heads, found.past
