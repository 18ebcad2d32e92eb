"""A graph out of another program's nodes and links, which come in its order and by its names.

Our order is topological.  Theirs is kept if it is one too, else inputs come first, then layers,
then targets.  Where the file's own text is given, the graph remembers which of its nodes and edges
stood where in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from graphs.core.graph import AttributionGraph
from graphs.core.imported import Imported
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable


@dataclass(frozen=True)
class Links:
    """Direct effects by rows of a list of nodes; -1 is a node that is not in the list."""

    source: Int[ndarray, " link"]
    target: Int[ndarray, " link"]
    weight: Float[ndarray, " link"]  # in the dtype that the graph shall have


@dataclass(frozen=True)
class Columns:
    """What is known of each node, in the list's order; nan where a number is not."""

    activation: Float[ndarray, " node"]
    value: Float[ndarray, " node"]
    seed: Float[ndarray, " node"]
    dropped: Float[ndarray, " node"]
    dropped_absolute: Float[ndarray, " node"]
    expanded: Bool[ndarray, " node"]


def columns_of_others(
    ids: list[NodeId], activation: Float[ndarray, " node"], seed: Float[ndarray, " node"]
) -> Columns:
    """What a file of another program leaves open: 0 for what rows lost, nan for values.

    Every feature counts as expanded: what such a file leaves out of a row was pruned, not unknown.
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
    """The graph of these nodes and links.

    `text` is what the file says beside them, `more` are the graph's provenance, output tokens and
    descriptions; output tokens are by place in the list.  A link from outside counts in `dropped`,
    one to the outside is none of the graph's.

    Raises ValueError that names the first node or link at fault: two nodes that are the same, two
    links between the same nodes, a link that runs against the order of layers or in a cycle.
    """
    _refuse_twice(ids)
    inside = (links.source >= 0) & (links.target >= 0)
    order = _order(ids, links, inside)
    place = np.argsort(order)
    ends = (place[links.target[inside]], place[links.source[inside]])
    weights = csr_array((links.weight[inside], ends), shape=(len(ids), len(ids)))
    if weights.nnz != np.count_nonzero(inside):
        _refuse_parallel(ids, links, inside)
    from_outside = (links.source < 0) & (links.target >= 0)
    lost, lost_weight = links.target[from_outside], links.weight[from_outside].astype(np.float64)
    dropped, dropped_absolute = columns.dropped.copy(), columns.dropped_absolute.copy()
    np.add.at(dropped, lost, lost_weight)
    np.add.at(dropped_absolute, lost, abs(lost_weight))
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
    """The edge of each link, as weights are stored: by target, then source; -1 for the others."""
    edges = np.full(len(inside), -1, dtype=np.int64)
    edges[inside] = np.argsort(np.lexsort((ends[1], ends[0])))
    return edges


def _refuse_twice(ids: list[NodeId]) -> None:
    first: dict[NodeId, int] = {}
    for row, node in enumerate(ids):
        if first.setdefault(node, row) != row:
            raise ValueError(f"Nodes {first[node]} and {row} are both {node}.")


def _refuse_parallel(ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"]) -> None:
    pairs = links.target * len(ids) + links.source
    again = inside.copy()
    again[np.flatnonzero(inside)[np.unique(pairs[inside], return_index=True)[1]]] = False
    link = int(np.flatnonzero(again)[0])
    source, target = ids[int(links.source[link])], ids[int(links.target[link])]
    raise ValueError(f"Link {link} is the second one from {source} to {target}.")


def _order(
    ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"]
) -> Int[ndarray, " node"]:
    """Rows in topological order: the list's if it is one, else inputs, layers, targets."""
    if np.all(links.source[inside] < links.target[inside]):
        return np.arange(len(ids))
    stage = [0 if n.kind in INPUT_KINDS else 2 if n.kind in TARGET_KINDS else 1 for n in ids]
    layer = [-1 if node.layer is None else node.layer for node in ids]
    kind = [0 if node.kind in TARGET_KINDS else int(node.kind) for node in ids]
    order = np.lexsort((kind, layer, stage))
    place = np.argsort(order)
    against = inside & (place[links.source] >= place[links.target])
    if np.any(against):
        _refuse_against(ids, links, inside, int(np.flatnonzero(against)[0]))
    return order


def _refuse_against(
    ids: list[NodeId], links: Links, inside: Bool[ndarray, " link"], link: int
) -> None:
    source, target = int(links.source[link]), int(links.target[link])
    found = f"Link {link} runs from {ids[source]} to {ids[target]}"
    ones = np.ones(np.count_nonzero(inside), dtype=np.int8)
    ends = (links.source[inside], links.target[inside])
    # A cycle is two nodes that reach each other: a part that is strongly connected.
    parts = connected_components(
        csr_array((ones, ends), shape=(len(ids), len(ids))), connection="strong"
    )[1]
    if parts[source] == parts[target]:
        raise ValueError(f"{found} and closes a cycle; a graph of direct effects has none.")
    raise ValueError(f"{found}, against the order of layers.")


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
