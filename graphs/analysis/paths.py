"""Paths: the strongest chains of direct effects, by influence.

    share of a path = start · Π share[t, s]

where `start` is the share of all influence that enters at its uppermost node.  Influence splits
into paths on its way down from the targets, so the shares of all paths between two sets of nodes
sum to the flow between them (`graphs.flow`).  The graph has no cycles: the strongest path to every
node is found in one pass over the rows.  The next ones are found by recursive enumeration (Jiménez
and Marzal 1999), which lists what Yen's algorithm lists and visits only nodes of paths that it
lists.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csc_array

from graphs.analysis.flow import Ends, entering, flow, inputs_to_targets
from graphs.analysis.select import select
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph

State = tuple[int, int]  # a row, and how many of the sets below the targets have been reached


@dataclass(frozen=True)
class NodePath:
    """One chain of direct effects."""

    nodes: tuple[int, ...]  # rows of the graph, from the source to the target
    share: float  # of all influence on the graph's targets
    weights: tuple[float, ...]  # direct effect of each node on the next

    @property
    def sign(self) -> int:
        """1 if the source raises the target along this path, -1 if it lowers it."""
        return -1 if sum(weight < 0 for weight in self.weights) % 2 else 1


@dataclass(frozen=True, repr=False)
class Paths(Brief):
    """The strongest paths between two sets of nodes."""

    listed: tuple[NodePath, ...]  # strongest first
    flow: float  # share of all influence that goes between the sets, over all paths

    @property
    def coverage(self) -> tuple[float, ...]:
        """Share of the flow that the first, the first two, … paths carry."""
        shares = np.cumsum([path.share for path in self.listed])
        return tuple((shares / self.flow).tolist()) if self.flow > 0 else ()


def strongest_paths(graph: AttributionGraph, ends: Ends | str | None = None, k: int = 10) -> Paths:
    """The k strongest paths between the ends, or all if there are fewer.

    ends: by default from all tokens to all targets; a name as in token:Dallas is where paths start.

    Raises ValueError if k is below 1, SelectionError for a name of no node.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}.")
    if not isinstance(ends, Ends):
        whole = inputs_to_targets(graph)
        ends = whole if ends is None else Ends(select(graph, ends), whole.targets)
    return Paths(_Search(graph, ends).best(k), flow(graph, ends))


@dataclass(frozen=True)
class _Step:
    """The n-th best partial path to a state, as the last step of another one."""

    value: float
    before: State | None  # None: the path starts here
    rank: int  # of the partial path to `before`


class _Search:
    """Recursive enumeration of the best partial paths from the targets down to each state."""

    def __init__(self, graph: AttributionGraph, ends: Ends) -> None:
        self.graph = graph
        totals = graph.row_totals()
        self.totals = np.where(totals > 0, totals, 1.0)
        total = float(graph.seed.sum())
        self.start = entering(graph, ends.targets) / total if total > 0 else graph.seed
        self.after = _stages_after(ends.stages, len(graph))
        self.best_value = self._best_values()
        self.columns = csc_array(graph.weights)
        self.found: dict[State, list[_Step]] = {}  # partial paths, best first
        self.queued: dict[State, list[tuple[float, int, int, int]]] = {}  # heaps of candidates
        self.shares: dict[int, dict[int, float]] = {}  # of nodes in the rows of their targets
        self.exhausted = set[State]()  # states without further partial paths

    def best(self, k: int) -> tuple[NodePath, ...]:
        """The strongest paths that reach all sets."""
        last = len(self.after)
        ended = np.flatnonzero(self.best_value[last])
        heap = [(-float(self.best_value[last, row]), int(row), 0) for row in ended]
        heapq.heapify(heap)
        found: list[NodePath] = []
        while heap and len(found) < k:
            _, row, rank = heapq.heappop(heap)
            found.append(self._path((row, last), rank))
            following = self._partial_path((row, last), rank + 1)
            if following is not None:
                heapq.heappush(heap, (-following.value, row, rank + 1))
        return tuple(found)

    def _best_values(self) -> Float[ndarray, "stage node"]:
        """Value of the strongest partial path to every state, from the last row to the first."""
        weights, first = self.graph.weights, self.after[0]
        values = np.zeros((len(self.after) + 1, len(self.graph)))
        values[first, np.arange(len(first))] = self.start
        for row in np.flatnonzero(np.diff(weights.indptr))[::-1]:
            edges = slice(weights.indptr[row], weights.indptr[row + 1])
            sources = weights.indices[edges]
            shares = np.abs(weights.data[edges].astype(np.float64)) / self.totals[row]
            for stage in np.flatnonzero(values[:-1, row]):
                places = (self.after[stage, sources], sources)
                values[places] = np.maximum(values[places], values[stage, row] * shares)
        return values

    def _partial_path(self, state: State, rank: int) -> _Step | None:
        """The partial path of this rank to a state, the best being 0; None if there are fewer.

        The next one to a state needs the next one to the state before it, and so on up to the
        targets.  A list holds the pending requests: chains may exceed Python's recursion limit.
        """
        pending = [(state, rank)]
        while pending:
            needed = self._extend(*pending[-1])
            if needed is None:
                pending.pop()
            else:
                pending.append(needed)
        found = self.found[state]
        return found[rank] if rank < len(found) else None

    def _extend(self, state: State, rank: int) -> tuple[State, int] | None:
        """Find partial paths to a state up to a rank; returns what must be found first, or None."""
        found = self.found.setdefault(state, [])
        while len(found) <= rank and state not in self.exhausted:
            if not found:
                self.queued[state] = self._candidates(state)
            elif (before := found[-1].before) is not None:
                following = before, found[-1].rank + 1
                if not self._is_known(*following):
                    return following
                self._queue_next(state, *following)
            if self.queued[state]:
                value, row, stage, used = heapq.heappop(self.queued[state])
                found.append(_Step(-value, (row, stage) if row >= 0 else None, used))
            else:
                self.exhausted.add(state)
        return None

    def _is_known(self, state: State, rank: int) -> bool:
        """Whether the partial path of a rank is known, or known not to exist."""
        return state in self.exhausted or rank < len(self.found.get(state, ()))

    def _candidates(self, state: State) -> list[tuple[float, int, int, int]]:
        """The best partial path through every target of the state's node."""
        node, stage = state
        heap: list[tuple[float, int, int, int]] = []
        if self.start[node] > 0 and self.after[0, node] == stage:
            heap.append((-float(self.start[node]), -1, -1, 0))
        rows, shares = self._outputs(node)
        for before in np.flatnonzero(self.after[:, node] == stage):
            values = self.best_value[before, rows] * shares
            heap += [
                (-value, row, int(before), 0)
                for value, row in zip(values.tolist(), rows.tolist(), strict=True)
                if value > 0
            ]
        heapq.heapify(heap)
        return heap

    def _queue_next(self, state: State, before: State, rank: int) -> None:
        """Queue the next best partial path through a node, if there is one."""
        found = self.found[before]
        if rank < len(found):
            node = state[0]
            if node not in self.shares:
                rows, shares = self._outputs(node)
                self.shares[node] = dict(zip(rows.tolist(), shares.tolist(), strict=True))
            value = found[rank].value * self.shares[node][before[0]]
            heapq.heappush(self.queued[state], (-value, *before, rank))

    def _outputs(self, node: int) -> tuple[Int[ndarray, " row"], Float[ndarray, " row"]]:
        """Rows of a node's targets, and its share in each."""
        edges = slice(self.columns.indptr[node], self.columns.indptr[node + 1])
        rows, sizes = self.columns.indices[edges], np.abs(self.columns.data[edges])
        return rows, sizes.astype(np.float64) / self.totals[rows]

    def _path(self, state: State, rank: int) -> NodePath:
        step = self._partial_path(state, rank)
        assert step is not None  # the caller knows its value
        share, nodes, weights = step.value, [state[0]], list[float]()
        while step.before is not None:
            edges = slice(*self.columns.indptr[[nodes[-1], nodes[-1] + 1]])
            place = np.searchsorted(self.columns.indices[edges], step.before[0])
            weights.append(float(self.columns.data[edges][place]))
            nodes.append(step.before[0])
            step = self._partial_path(step.before, step.rank)
            assert step is not None
        return NodePath(tuple(nodes), share, tuple(weights))


def _stages_after(
    stages: tuple[Bool[ndarray, " node"], ...], n_nodes: int
) -> Int[ndarray, "stage node"]:
    """Number of sets reached after entering a node, by the number reached before."""
    after = np.empty((len(stages), n_nodes), dtype=np.int64)
    following = np.full(n_nodes, len(stages))
    for stage in range(len(stages) - 1, -1, -1):
        following = np.where(stages[stage], following, stage)
        after[stage] = following
    return after
