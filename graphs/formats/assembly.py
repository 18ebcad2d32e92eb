"""Builds a graph from another program's nodes and links, given in that program's order.

Nodes of a graph are in topological order.  The order of the file is kept if it is topological;
otherwise inputs come first, then layers, then targets.  If the text of the file is given, the graph
records which of its nodes and edges was at which place in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.imported import Imported
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable


@dataclass(frozen=True, repr=False)
class Links(Brief):
    """Direct effects between rows of a list of nodes; -1 is a node outside the list."""

    source: Int[ndarray, " link"]
    target: Int[ndarray, " link"]
    weight: Float[ndarray, " link"]  # in the dtype of the graph to build


@dataclass(frozen=True)
class Columns:
    """Values of each node, in the order of the list; nan where a number is unknown."""

    activation: Float[ndarray, " node"]
    value: Float[ndarray, " node"]
    seed: Float[ndarray, " node"]
    dropped: Float[ndarray, " node"]
    dropped_absolute: Float[ndarray, " node"]
    expanded: Bool[ndarray, " node"]


def imported_columns(
    ids: list[NodeId], activation: Float[ndarray, " node"], seed: Float[ndarray, " node"]
) -> Columns:
    """Columns for a file without them: dropped weights are 0, values are nan.

    Every feature counts as expanded: an edge that such a file leaves out was pruned, not unknown.
    """
    computed = (NodeKind.FEATURE, *TARGET_KINDS)
    return Columns(
        activation=activation,
        value=np.full(len(ids), np.nan),
        seed=seed,
        dropped=np.zeros(len(ids)),
        dropped_absolute=np.zeros(len(ids)),
        expanded=np.array([node.kind in computed for node in ids], dtype=bool),
    )


def assemble(
    ids: list[NodeId], links: Links, columns: Columns, text: bytes | None = None, **more: Any
) -> AttributionGraph:
    """The graph with these nodes and links.

    `text` is the rest of the file; `more` holds the graph's provenance, output tokens (by place in
    the list) and descriptions.  A link whose source is outside the list counts in `dropped`; one
    whose target is outside is ignored.

    Raises ValueError that names the first invalid node or link: a duplicate node, a second link
    between the same nodes, a link against the order of layers or one that closes a cycle.
    """
    _refuse_duplicates(ids)
    inside = (links.source >= 0) & (links.target >= 0)
    order = _order(ids, links, inside)
    place = np.argsort(order)
    ends = (place[links.target[inside]], place[links.source[inside]])
    weights = csr_array((links.weight[inside], ends), shape=(len(ids), len(ids)))
    if weights.nnz != np.count_nonzero(inside):
        _refuse_parallel(ids, links, inside)
    from_outside = (links.source < 0) & (links.target >= 0)
    target, weight = links.target[from_outside], links.weight[from_outside].astype(np.float64)
    dropped, dropped_absolute = columns.dropped.copy(), columns.dropped_absolute.copy()
    np.add.at(dropped, target, weight)
    np.add.at(dropped_absolute, target, abs(weight))
    output_tokens = more.pop("output_tokens", {})
    return AttributionGraph(
        nodes=_table(ids, columns).take(order),
        weights=weights,
        seed=columns.seed[order],
        dropped=dropped[order],
        dropped_absolute=dropped_absolute[order],
        expanded=columns.expanded[order],
        output_tokens={int(place[row]): top for row, top in output_tokens.items()},
        imported=None if text is None else Imported(text, place, _edges(inside, ends)),
        **more,
    )


def _edges(
    inside: Bool[ndarray, " link"], ends: tuple[Int[ndarray, " edge"], Int[ndarray, " edge"]]
) -> Int[ndarray, " link"]:
    """Edge number of each link, edges sorted by target, then source; -1 for links outside."""
    edges = np.full(len(inside), -1, dtype=np.int64)
    edges[inside] = np.argsort(np.lexsort((ends[1], ends[0])))
    return edges


def _refuse_duplicates(ids: list[NodeId]) -> None:
    first: dict[NodeId, int] = {}
    for row, node in enumerate(ids):
        if first.setdefault(node, row) != row:
            raise ValueError(f"Nodes {first[node]} and {row} are both {node}.")


def _refuse_parallel(ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"]) -> None:
    pairs = links.target * len(ids) + links.source
    repeated = inside.copy()
    repeated[np.flatnonzero(inside)[np.unique(pairs[inside], return_index=True)[1]]] = False
    link = int(np.flatnonzero(repeated)[0])
    source, target = ids[int(links.source[link])], ids[int(links.target[link])]
    raise ValueError(f"Link {link} is the second one from {source} to {target}.")


def _order(
    ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"]
) -> Int[ndarray, " node"]:
    """Rows in topological order: as listed if that is topological, else inputs, layers, targets."""
    if np.all(links.source[inside] < links.target[inside]):
        return np.arange(len(ids))
    stage = [0 if n.kind in INPUT_KINDS else 2 if n.kind in TARGET_KINDS else 1 for n in ids]
    layer = [-1 if node.layer is None else node.layer for node in ids]
    kind = [_rank(node.kind) for node in ids]
    order = np.lexsort((kind, layer, stage))
    place = np.argsort(order)
    backward = inside & (place[links.source] >= place[links.target])
    if np.any(backward):
        _refuse_backward(ids, links, inside, int(np.flatnonzero(backward)[0]))
    return order


def _rank(kind: NodeKind) -> float:
    """The order of kinds within a layer: heads read its constants, and its features read them."""
    if kind in TARGET_KINDS:
        return 0.0
    return NodeKind.FEATURE - 0.5 if kind == NodeKind.HEAD else float(kind)


def _refuse_backward(
    ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"], link: int
) -> None:
    source, target = int(links.source[link]), int(links.target[link])
    stated = f"Link {link} runs from {ids[source]} to {ids[target]}"
    ones = np.ones(np.count_nonzero(inside), dtype=np.int8)
    ends = (links.source[inside], links.target[inside])
    # Two nodes on a cycle reach each other: they are in one strongly connected component.
    parts = connected_components(
        csr_array((ones, ends), shape=(len(ids), len(ids))), connection="strong"
    )[1]
    if parts[source] == parts[target]:
        raise ValueError(f"{stated} and closes a cycle; a graph of direct effects has none.")
    raise ValueError(f"{stated}, against the order of layers.")


def _table(ids: list[NodeId], columns: Columns) -> NodeTable:
    def column(name: str, dtype: type[np.signedinteger]) -> Int[ndarray, " node"]:
        fields = [getattr(node, name) for node in ids]
        return np.array([-1 if field is None else field for field in fields], dtype=dtype)

    return NodeTable(
        kind=column("kind", np.int8),
        layer=column("layer", np.int32),
        pos=column("pos", np.int32),
        index=column("index", np.int64),
        activation=columns.activation,
        value=columns.value,
    )
