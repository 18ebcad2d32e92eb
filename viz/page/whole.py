"""Whole: results of pruning the whole graph, for a page that holds only a part of it.

Counts and scores at a grid of thresholds, computed here since the page lacks some nodes or edges.
The page does not interpolate; it shows the nearest point of the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphs.analysis.prune_grid import prune_grid
from graphs.core.nodes import NodeKind
from viz.html.columns import columns
from viz.page.part import Part

NODES = tuple(round(0.05 * step, 2) for step in range(1, 21))  # steps of the keys [ and ]
EDGES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
_MOST_EDGES = 5_000_000  # takes a second per million or two


def whole_grid(part: Part) -> dict[str, Any] | None:
    """Columns by node threshold, then edge threshold; first errors pruned, then errors kept."""
    graph = part.graph
    if part.prepruned or graph.weights.nnz > _MOST_EDGES:
        return None
    pruned = prune_grid(graph, NODES, EDGES)
    errors = np.any(graph.nodes.is_kind(NodeKind.ERROR))
    both = (pruned, prune_grid(graph, NODES, EDGES, keep_errors=True) if errors else pruned)
    return columns(
        atNodes=np.array(NODES),
        atEdges=np.array(EDGES),
        nNodes=np.array([grid.n_nodes for grid in both]).ravel().astype(np.int32),
        nEdges=np.array([grid.n_edges for grid in both]).ravel().astype(np.int32),
        replacement=np.array([grid.replacement for grid in both]).ravel(),
        completeness=np.array([grid.completeness for grid in both]).ravel(),
    )
