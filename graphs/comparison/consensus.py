"""Consensus: what graphs of one dictionary on several prompts have in common.

For every node and every edge that at least two graphs have: the share of prompts in which it
appears, and the mean influence at the node or along the edge, counted as 0 where it does not
appear.  The interval of the mean is a percentile bootstrap over prompts.

Prompts are aligned with the first one by their tokens (`graphs.comparison.positions`); nodes at
positions without an aligned position in the first prompt are left out, and `left_out` is their mean
share of influence.  Prompts of one kind differ in tokens and predictions, so a token is one node
per position, whatever its text, and predictions are `target:RANK@POS`, the most probable being 0.

The same holds for attention heads, by the influence that each writes into nodes at a position
(`graphs.analysis.head_shares`), if all graphs know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.head_shares import written_shares
from graphs.analysis.influence import edge_influence, influence_shares
from graphs.comparison.matching import identity_keys
from graphs.comparison.positions import align_prompts
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.identity import same_dictionary
from graphs.core.nodes import NodeId, NodeKind

SAMPLES = 1000  # bootstrap samples of prompts
COLUMNS = 4096  # intervals computed at once
_MOST_HEADS, _MOST_POSITIONS = 2**16, 2**32  # of a layer, and of a prompt: more than there are


@dataclass(frozen=True, repr=False)
class Common(Brief):
    """Statistics of nodes or edges over all prompts, one row each."""

    present: Float[ndarray, " row"]  # share of prompts
    mean: Float[ndarray, " row"]  # influence as a share of all; signed for edges
    low: Float[ndarray, " row"]  # bounds of the interval of the mean
    high: Float[ndarray, " row"]


@dataclass(frozen=True, repr=False)
class Consensus(Brief):
    """What several graphs have in common; rows are sorted by the absolute value of the mean."""

    nodes: tuple[NodeId, ...]  # positions are those of the first prompt
    at_nodes: Common
    ends: tuple[tuple[NodeId, NodeId], ...]  # source and target of each edge
    along_edges: Common
    left_out: float  # mean share of influence at nodes without an aligned position
    heads: tuple[NodeId, ...] = ()  # at a query
    at_heads: Common | None = None  # by what they write; None: it is not known of all graphs


def consensus(graphs: Sequence[AttributionGraph], level: float = 0.95, seed: int = 0) -> Consensus:
    """Nodes and edges that at least two graphs have, with intervals at this confidence level.

    Raises ValueError for fewer than two graphs, for graphs of several dictionaries and for a level
    that is not between 0 and 1.
    """
    if len(graphs) < 2:
        raise ValueError(f"Expected at least two graphs, got {len(graphs)}.")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, got {level}.")
    if not all(same_dictionary(graphs[0], graph) for graph in graphs):
        raise ValueError("Expected graphs of one dictionary.")
    prompts = [AlignedPrompt(graph, graphs[0]) for graph in graphs]
    every = sorted({key for prompt in prompts for key in prompt.keys if key is not None})
    place = {key: number for number, key in enumerate(every)}
    named = [_node(key) for key in every]
    tables = [prompt.tables(place) for prompt in prompts]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(graphs), np.full(len(graphs), 1 / len(graphs)), SAMPLES)
    nodes, at_nodes = _common([nodes for nodes, _ in tables], drawn, level)
    edges, along_edges = _common([edges for _, edges in tables], drawn, level)
    written = [prompt.heads() for prompt in prompts]
    known = [table for table in written if table is not None]
    heads, at_heads = list[int](), None
    if len(known) == len(graphs):
        heads, at_heads = _common(known, drawn, level)
    return Consensus(
        nodes=tuple(named[number] for number in nodes),
        at_nodes=at_nodes,
        ends=tuple((named[key % len(every)], named[key // len(every)]) for key in edges),
        along_edges=along_edges,
        left_out=float(np.mean([prompt.left_out for prompt in prompts])),
        heads=tuple(_head(key) for key in heads),
        at_heads=at_heads,
    )


Table = tuple[Int[ndarray, " _row"], Float[ndarray, " _row"]]  # keys and their values


class AlignedPrompt:
    """One graph, with nodes named by their aligned positions in the first.

    `keys` are None for nodes at positions without an aligned position.
    """

    def __init__(self, graph: AttributionGraph, first: AttributionGraph) -> None:
        self.graph = graph
        positions = self.positions = align_prompts(graph.provenance, first.provenance)
        self.keys = identity_keys(graph, positions)
        targets = graph.target_rows()
        ranked = targets[np.argsort(-graph.seed[targets], kind="stable")]
        for rank, row in enumerate(ranked.tolist()):
            pos = int(positions[graph.nodes.pos[row]])
            if pos >= 0:
                self.keys[row] = (int(NodeKind.TARGET), -1, pos, rank)
        self.arrived = influence_shares(graph)
        unaligned = np.array([key is None for key in self.keys], dtype=bool)
        self.left_out = float(self.arrived[unaligned].sum() / (self.arrived.sum() or 1.0))

    def tables(self, place: dict[tuple[int, ...], int]) -> tuple[Table, Table]:
        """Influence at nodes and along edges; the key of an edge is target · nodes + source."""
        number = np.array([-1 if key is None else place[key] for key in self.keys], dtype=np.int64)
        known = number >= 0
        sizes = edge_influence(self.graph, self.arrived)
        target, source = number[edge_targets(sizes)], number[sizes.indices]
        flow = np.where(self.graph.weights.data < 0, -sizes.data, sizes.data)
        both = (target >= 0) & (source >= 0)
        edges = (target * len(place) + source)[both]
        return (number[known], self.arrived[known]), (edges, flow[both])

    def heads(self) -> Table | None:
        """What heads write at positions that the first prompt has; the key is `_head_key`."""
        shares = written_shares(self.graph)
        if shares is None:
            return None
        layer, head, pos = np.nonzero(shares)
        there = self.positions[pos]
        layer, head, pos, there = (one[there >= 0] for one in (layer, head, pos, there))
        return _head_key(layer, head, there), shares[layer, head, pos]


def _common(
    tables: list[Table], drawn: Int[ndarray, "sample prompt"], level: float
) -> tuple[list[int], Common]:
    """Keys in at least two tables, and their statistics, largest absolute mean first."""
    found, counts = np.unique(np.concatenate([keys for keys, _ in tables]), return_counts=True)
    found, counts = found[counts > 1], counts[counts > 1]
    rows = np.zeros((len(tables), len(found)))
    for row, (keys, values) in zip(rows, tables, strict=True):
        place = np.searchsorted(found, keys)
        shared = place < len(found)
        shared[shared] = found[place[shared]] == keys[shared]
        row[place[shared]] = values[shared]
    mean = rows.mean(0)
    order = np.lexsort((found, -np.abs(mean)))
    rows, weights = rows[:, order], drawn / len(tables)
    bounds = np.empty((2, len(found)))
    tails = [(1 - level) / 2, (1 + level) / 2]
    for start in range(0, len(found), COLUMNS):
        part = slice(start, start + COLUMNS)
        bounds[:, part] = np.quantile(weights @ rows[:, part], tails, axis=0)
    common = Common(counts[order] / len(tables), mean[order], bounds[0], bounds[1])
    return found[order].tolist(), common


def _node(key: tuple[int, ...]) -> NodeId:
    """The node of a key; a token is named by its position alone, since it may differ."""
    kind, *fields = key
    layer, pos, index = (None if field < 0 else field for field in fields)
    if kind == NodeKind.TOKEN:
        index = 0
    return NodeId(NodeKind(kind), layer, pos, index)


def _head_key(layer: ndarray, head: ndarray, pos: ndarray) -> Int[ndarray, " row"]:
    """One number for a head at a position."""
    return (layer * _MOST_HEADS + head) * _MOST_POSITIONS + pos


def _head(key: int) -> NodeId:
    """The head of a number from `_head_key`."""
    head, pos = divmod(key, _MOST_POSITIONS)
    layer, index = divmod(head, _MOST_HEADS)
    return NodeId(NodeKind.HEAD, layer, pos, index)
