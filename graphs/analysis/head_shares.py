"""How much of a graph's influence each attention head carries, along edges and into nodes.

An edge's influence goes to its parts by their sizes: past all attention, and through each head that
it crosses first (`graphs.core.attended`).  A node's goes to what heads write at its position and to
the rest (`graphs.core.head_totals`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.influence import edge_influence, influence, influence_shares
from graphs.core.attended import EdgeParts
from graphs.core.graph import AttributionGraph


class HeadShares(NamedTuple):
    """Shares of the influence along edges that are taken apart; all of them sum to 1."""

    heads: Float[ndarray, "layer head"]
    past: float  # through no attention
    rest: float  # through heads that are not among the strongest of their edges


def head_shares(graph: AttributionGraph, edges: EdgeParts) -> HeadShares:
    """The shares of heads, from parts of edges of the graph."""
    along = edge_influence(graph, influence(graph) + graph.seed)
    along = np.asarray(along[edges.target, edges.source]).ravel()
    sizes = np.abs(edges.part, dtype=np.float64)
    past, rest = (np.abs(part, dtype=np.float64) for part in (edges.bypass, edges.rest))
    totals = sizes.sum(1) + past + rest
    each = np.divide(along, totals, out=np.zeros_like(totals), where=totals > 0)
    each /= along.sum() or 1.0
    known = edges.layer >= 0
    n_heads = int(edges.head.max(initial=0)) + 1
    heads = np.zeros((graph.provenance.model.n_layers, n_heads))
    carried = (sizes * each[:, None])[known]
    np.add.at(heads, (edges.layer[known], edges.head[known]), carried)
    return HeadShares(heads, float(each @ past), float(each @ rest))


def written_shares(graph: AttributionGraph) -> Float[ndarray, "layer head pos"] | None:
    """Influence at nodes that heads write, by the nodes' positions; None: it is not known."""
    if graph.heads is None:
        return None
    known = graph.heads
    sizes = np.abs(known.parts, dtype=np.float64)
    totals = sizes.sum((1, 2)) + np.abs(known.rest, dtype=np.float64)
    arrived = influence_shares(graph)[known.row]
    each = np.divide(arrived, totals, out=np.zeros_like(totals), where=totals > 0)
    shares = np.zeros((len(graph.provenance.tokens), *known.parts.shape[1:]))
    np.add.at(shares, graph.nodes.pos[known.row], sizes * each[:, None, None])
    return shares.transpose(1, 2, 0)
