"""What a graph keeps of the file that it was read from, so that an export gives it back.

Programs write more than a graph: ids and labels, who made it and how, what a person did in the
viewer, and the influence of nodes in a larger graph, of which the file holds a part.  All of it is
kept as it was, but for the links, which are the graph's own edges.  A graph with fewer nodes or
edges is another one and keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Imported:
    """A JSON as it was read, and where its nodes and links are in the graph."""

    text: bytes  # without our own key and without links that are edges of the graph
    rows: Int[ndarray, " node"]  # of each of its nodes, the row
    links: Int[ndarray, " link"]  # of each of its links, the edge as stored; -1: the next in text

    def fits(self, nodes: int, edges: int) -> bool:
        """Whether it is about a graph of so many nodes and edges."""
        kept = self.links[self.links != -1]
        return np.array_equal(np.sort(self.rows), np.arange(nodes)) and np.array_equal(
            np.sort(kept), np.arange(edges)
        )
