"""Flows between boxes, of which each stands for some nodes of a graph and some nodes are in none.

A flow is the influence that goes from one box to another by no other box, along edges or through
nodes that are in none:

    flow[T, S] = Σ_{t in T, s in S}  arrived[t] · (P_BB + P_BR (1 − P_RR)⁻¹ P_RB)[t, s]

with the shares P, the nodes B of the boxes and the rest R.  What starts in the rest, at errors,
biases, other tokens and dropped edges, is everything else.  So all that flows into a box is what
has arrived there, and nothing of the influence is lost.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import graph_shares
from graphs.core.graph import AttributionGraph


def box_flows(
    graph: AttributionGraph,
    place: Int[ndarray, " node"],  # box of each node, or -1
    count: int,  # of boxes
    arrived: Float[ndarray, " node"],  # share of all influence, seed included
) -> tuple[Float[ndarray, "target source"], Float[ndarray, "target source"]]:
    """Flow into each box from each, and in the last column from everything else; with signs too.

    What enters a box and passes through nodes of none back into it is left out.
    """
    shares = graph_shares(graph)
    signed = shares.copy()
    signed.data = np.where(graph.weights.data < 0, -shares.data, shares.data)
    has_row = np.diff(shares.indptr) > 0
    pull = csr_array(
        (arrived[place >= 0], (place[place >= 0], np.flatnonzero(place >= 0))),
        shape=(count, len(graph)),
    )
    inside, ends = place >= 0, (place < 0) & ~has_row
    found: list[Float[ndarray, "target source"]] = []
    for matrix in (shares, signed):
        reached = _below((pull @ matrix).toarray().T, matrix, has_row & ~inside)
        into = np.zeros((count, count + 1))
        for node, box in zip(np.flatnonzero(inside), place[inside], strict=True):
            into[:, box] += reached[node]
        into[:, -1] = reached[ends].sum(axis=0)
        found.append(into)
    flow, net = found
    flow[:, -1] = np.maximum(0.0, pull @ has_row - flow[:, :-1].sum(axis=1))
    for matrix in (flow, net):
        np.fill_diagonal(matrix, 0.0)
    return flow, net


def _below(
    first: Float[ndarray, "node box"], shares: csr_array, passing: Bool[ndarray, " node"]
) -> Float[ndarray, "node box"]:
    """What reaches each node of what starts there, where these nodes pass on what they get."""
    reached = first.copy()
    start: list[int] = shares.indptr.tolist()
    downwards: list[int] = np.flatnonzero(passing)[::-1].tolist()
    for row in downwards:
        edges = slice(start[row], start[row + 1])
        reached[shares.indices[edges]] += shares.data[edges, None] * reached[row]
    return reached
