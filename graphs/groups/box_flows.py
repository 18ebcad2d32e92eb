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
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.carrying import carry_down
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
    has_row, inside = np.diff(graph.weights.indptr) > 0, place >= 0
    start = np.zeros((len(graph), count))
    start[inside, place[inside]] = arrived[inside]
    # Each node's box as a column, and what starts in no box as the last one.
    ends = np.where(has_row, -1, count)
    ends[inside] = place[inside]
    box = (ends[:, None] == np.arange(count + 1)).astype(np.float64)
    totals = graph.row_totals()
    flow, net = (
        carry_down(start, graph.weights, totals, inside, signed=signed).T @ box
        for signed in (False, True)
    )
    flow[:, -1] = np.maximum(0.0, start.T @ has_row - flow[:, :-1].sum(axis=1))
    for matrix in (flow, net):
        np.fill_diagonal(matrix, 0.0)
    return flow, net
