"""Collapsing: a graph of groups that conserves influence.

    flow[T, S]  = Σ_{t in T, s in S} (influence[t] + seed[t]) · share[t, s]      for groups T ≠ S
    arrived[T]  = Σ_{t in T} seed[t] + Σ_{T'} flow[T', T]

Every node in no group is a group of its own.  Flow inside a group is left out, so `arrived` counts
what enters a group once, and inputs have the same influence as in the full graph.  All numbers are
shares of the influence on the graph's targets.

Groups of nodes of several layers may feed each other: this is an error, since paths need a graph
without cycles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import edge_influence, influence_shares
from graphs.analysis.scores import Scores, lost_influence, scores_from
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import INPUT_KINDS, NodeKind
from graphs.errors import HeadwaterError


class CyclicGroups(HeadwaterError):
    """Groups feed each other; the message names them."""


@dataclass(frozen=True, repr=False)
class Collapsed(Brief):
    """Groups in topological order, and the flow between them."""

    names: tuple[str, ...]  # of a group, or `str(NodeId)` of a node in no group
    members: tuple[Int[ndarray, " _member"], ...]  # rows of the full graph
    arrived: Float[ndarray, " group"]  # share of all influence that enters
    flow: csr_array  # flow[target, source]: share of all influence
    net: csr_array  # the same, where weights of opposite sign cancel
    scores: Scores

    def __len__(self) -> int:
        return len(self.names)


def collapse(graph: AttributionGraph, groups: Mapping[str, Int[ndarray, " _member"]]) -> Collapsed:
    """The graph with the nodes of each group merged into one.

    Raises CyclicGroups for groups that feed each other and ValueError for a node in two groups.
    """
    total = float(graph.seed.sum()) or 1.0
    members, names = _parts(graph, groups)
    part = np.empty(len(graph), dtype=np.int64)
    for number, rows in enumerate(members):
        part[rows] = number
    reached = influence_shares(graph)
    flow, net = _flows(graph, part, len(members), reached)
    order: list[int] = topological_order(flow, names).tolist()
    place = np.argsort(order)
    flow, net = (_reordered(matrix, place) for matrix in (flow, net))
    seeds = np.bincount(place[part], weights=graph.seed, minlength=len(members)) / total
    arrived = seeds + np.asarray(flow.sum(axis=0))
    return Collapsed(
        names=tuple(names[number] for number in order),
        members=tuple(members[number] for number in order),
        arrived=arrived,
        flow=flow,
        net=net,
        scores=_scores(graph, place[part], arrived, reached),
    )


def _parts(
    graph: AttributionGraph, groups: Mapping[str, Int[ndarray, " _member"]]
) -> tuple[list[Int[ndarray, " _member"]], list[str]]:
    """Rows and name of every group, then of every node in no group."""
    grouped = np.zeros(len(graph), dtype=np.int64)
    for rows in groups.values():
        np.add.at(grouped, rows, 1)
    if np.any(grouped > 1):
        raise ValueError(f"{graph.nodes[int(grouped.argmax())]} is in several groups.")
    alone = np.flatnonzero(grouped == 0)
    members = [*groups.values(), *alone[:, None]]
    return members, [*groups, *(str(graph.nodes[int(row)]) for row in alone)]


def _flows(
    graph: AttributionGraph,
    part: Int[ndarray, " node"],
    count: int,
    reached: Float[ndarray, " node"],
) -> tuple[csr_array, csr_array]:
    """Flow between different parts, absolute and signed."""
    along = edge_influence(graph, reached)
    sizes = along.data
    signed = np.where(graph.weights.data < 0, -sizes, sizes)
    target, source = part[edge_targets(along)], part[along.indices]
    across = target != source
    ends = (target[across], source[across])
    flow, net = (csr_array((data[across], ends), shape=(count, count)) for data in (sizes, signed))
    flow.sum_duplicates()
    net.sum_duplicates()
    return flow, net


def topological_order(flow: csr_array, names: list[str]) -> Int[ndarray, " group"]:
    """Sources before targets, otherwise in the given order.  Raises CyclicGroups."""
    sources = flow.indices.tolist()
    ends = pairwise(flow.indptr.tolist())
    sorter = TopologicalSorter({to: sources[start:end] for to, (start, end) in enumerate(ends)})
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[int] = error.args[1]
        path = " → ".join(repr(names[number]) for number in cycle)
        raise CyclicGroups(
            f"Groups feed each other, {path}: split one of them so that each part comes before or "
            "after the others."
        ) from error
    order: list[int] = []
    ready: list[int] = []
    while sorter.is_active():
        for number in sorter.get_ready():
            heappush(ready, number)
        order.append(heappop(ready))
        sorter.done(order[-1])
    return np.array(order, dtype=np.int64)


def _reordered(matrix: csr_array, place: Int[ndarray, " group"]) -> csr_array:
    """Rows and columns moved to their places."""
    ends = (place[edge_targets(matrix)], place[matrix.indices])
    moved = csr_array((matrix.data, ends), shape=matrix.shape)
    moved.sort_indices()
    return moved


def _scores(
    graph: AttributionGraph,
    part: Int[ndarray, " node"],
    arrived: Float[ndarray, " group"],
    reached: Float[ndarray, " node"],
) -> Scores:
    """As `graphs.scores`: a part of errors only is an error, one of inputs only is an input."""
    errors = graph.nodes.is_kind(NodeKind.ERROR)
    inputs = graph.nodes.is_kind(*INPUT_KINDS)
    lost = lost_influence(graph, reached, errors)

    def wholly(kept: Bool[ndarray, " node"]) -> Bool[ndarray, " group"]:
        return np.bincount(part[~kept], minlength=len(arrived)) == 0

    return scores_from(arrived, wholly(inputs), wholly(errors), lost)
