"""The JSON file that a graph was read from, kept so that an export is lossless.

Files of other programs hold more than a graph: ids and labels, origin and settings, what a user did
in the viewer, and the influence of nodes in a larger graph of which the file is a part.  All of it
is kept as it was, except the links, which are the graph's own edges.  A graph with fewer nodes or
edges keeps nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Imported:
    """A JSON text, and the rows and edges of its nodes and links in the graph."""

    text: bytes  # without our own key and without links that are edges of the graph
    rows: Int[ndarray, " node"]  # of each node in the text
    links: Int[ndarray, " link"]  # of each link, the stored edge; -1: the next link in `text`

    def fits(self, nodes: int, edges: int) -> bool:
        """Whether it describes a graph with these numbers of nodes and edges."""
        kept = self.links[self.links != -1]
        return np.array_equal(np.sort(self.rows), np.arange(nodes)) and np.array_equal(
            np.sort(kept), np.arange(edges)
        )
