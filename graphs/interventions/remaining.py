"""Remaining: what an intervention leaves of each node, as a share of what it was.

share[n] = (value[n] + change[n]) / value[n]     0 at or below the value at which n is off
share[n] = after / before                        of nodes that the intervention sets
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeId
from graphs.interventions.effects import EditedNode


def remaining(
    graph: AttributionGraph,
    measured: Float[ndarray, " node"],
    edited: Iterable[EditedNode] = (),
) -> Float[ndarray, " node"]:
    """Share of each node that is left, 1 where nothing changed; nan for targets and unknowns.

    `measured` are changes of values, nan where unknown.
    """
    value = graph.nodes.value.astype(np.float64)
    now = value + measured
    known = np.isfinite(now) & (value != 0) & ~graph.nodes.is_kind(*TARGET_KINDS)
    share = np.divide(now, value, out=np.full(len(graph), np.nan), where=known)
    if graph.responses is not None:
        share[known & (now <= graph.responses.threshold)] = 0.0  # nan compares as no
    for one in edited:
        if one.before == 0 or one.after is None or one.node.startswith("head:"):
            continue
        node = NodeId.parse(one.node)
        if node in graph:
            share[graph.find(node)] = one.after / one.before
    return share
