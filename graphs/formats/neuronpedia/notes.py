"""A person's notes in the JSON of circuit-tracer and Neuronpedia: pins, supernodes and labels.

They are in `qParams`: `pinnedIds`, `supernodes` and `clerps`.  The key of a label for a feature at
all positions is the feature's number, as in circuit-tracer's viewer; that for one feature node is
`{layer}_{number}_{position}`, as in Neuronpedia's, and for any other node its id.  Layer and number
are as numbered in the file.

Ids are `node_id` or, as in Anthropic's published graphs, `jsNodeId`, which may stand for several
nodes.  Notes about nodes that are not in the file are left out, and a node stays in the first of
its supernodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from pydantic import TypeAdapter, ValidationError

from graphs.core.annotations import Annotations, FreeNames, Group
from graphs.core.nodes import NodeId, NodeKind
from graphs.formats.neuronpedia.names import feature_number
from graphs.formats.neuronpedia.schema import GraphFile, Node, QParams

_LISTS = TypeAdapter(list[list[str]])


def notes_as_params(annotations: Annotations, ids: list[NodeId], nodes: list[Node]) -> QParams:
    """The annotations about nodes of a file, whose `nodes` are `ids`."""
    names = {str(node): theirs.node_id for node, theirs in zip(ids, nodes, strict=True)}
    keys: dict[str, str] = {}
    for node, theirs in zip(ids, nodes, strict=True):
        number = _number(node, theirs)
        keys[str(node)] = theirs.node_id if number is None else _key(theirs, number)
        if number is not None:
            keys[f"{node.layer}/{node.index}"] = str(number)
    groups = [
        [group.name, *(names[member] for member in group.members if member in names)]
        for group in annotations.groups
    ]
    return QParams(
        pinnedIds=[names[name] for name in annotations.pins if name in names],
        supernodes=[members for members in groups if len(members) > 1],
        clerps=[(keys[name], text) for name, text in annotations.labels.items() if name in keys],
    )


def notes_of_params(file: GraphFile, ids: list[NodeId], automatic: Collection[str]) -> Annotations:
    """Annotations of a file whose nodes are `ids`.  Raises ValueError if they are damaged."""
    params = file.qParams or QParams()
    named = _named(file, ids)
    pins = [
        node for name in dict.fromkeys(_words(params.pinnedIds)) for node in named.get(name, ())
    ]
    groups: list[Group] = []
    taken, names = set[NodeId](), FreeNames()
    for name, *members in _rows(params.supernodes, "supernodes"):
        # Each id is consumed at its first use, so that a hostile file cannot repeat a long list.
        nodes = [node for member in members for node in named.pop(member, ())]
        fresh = [node for node in dict.fromkeys(nodes) if node not in taken]
        if fresh:
            taken.update(fresh)
            made = Group(
                name=names.take(name or "group"),
                members=tuple(map(str, fresh)),
                automatic=name in automatic,
            )
            groups.append(made)
    labels: dict[str, str] = {}
    keys = _labelled(file, ids)
    # The last label of a key counts, so a hostile file cannot repeat a key with many nodes.
    for key, text in _pairs(_rows(params.clerps, "clerps")).items():
        labels |= dict.fromkeys(keys.get(key, ()), text)
    return Annotations(
        pins=tuple(map(str, dict.fromkeys(pins))), labels=labels, groups=tuple(groups)
    )


def _named(file: GraphFile, ids: list[NodeId]) -> dict[str, list[NodeId]]:
    """Nodes by node_id, and by jsNodeId where that is not a node_id."""
    named = {theirs.node_id: [node] for theirs, node in zip(file.nodes, ids, strict=True)}
    shared: defaultdict[str, list[NodeId]] = defaultdict(list)
    for theirs, node in zip(file.nodes, ids, strict=True):
        if theirs.jsNodeId:
            shared[theirs.jsNodeId].append(node)
    return shared | named


def _labelled(file: GraphFile, ids: list[NodeId]) -> dict[str, list[str]]:
    """Nodes or features that the key of a label stands for, as named in annotations.

    If numbers are plain indices, one number may stand for features in several layers.
    """
    keys = {theirs.node_id: [str(node)] for theirs, node in zip(file.nodes, ids, strict=True)}
    anywhere: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for theirs, node in zip(file.nodes, ids, strict=True):
        number = _number(node, theirs)
        if number is not None:
            keys[_key(theirs, number)] = [str(node)]
            anywhere[str(number)][f"{node.layer}/{node.index}"] = None
    return keys | {number: list(features) for number, features in anywhere.items()}


def _key(theirs: Node, number: int) -> str:
    """The key of a label of one feature node."""
    return f"{theirs.layer}_{number}_{theirs.ctx_idx}"


def _number(node: NodeId, theirs: Node) -> int | None:
    """Number of a feature in the file; None for other nodes."""
    if node.kind != NodeKind.FEATURE:
        return None
    number = theirs.feature
    return feature_number(node) if number is None or number < 0 else number


def _words(names: list[str] | str) -> list[str]:
    return [name for name in names.split(",") if name] if isinstance(names, str) else names


def _pairs(rows: list[list[str]]) -> dict[str, str]:
    if any(len(row) != 2 for row in rows):
        raise ValueError("qParams.clerps must hold pairs of a key and a label.")
    return dict(rows)  # pyright: ignore


def _rows(rows: Any, where: str) -> list[list[str]]:
    """Lists of strings, possibly given as one JSON string.  Raises ValueError for others."""
    if not isinstance(rows, str):
        return [[str(part) for part in row] for row in rows if row]
    if not rows:
        return []
    try:
        return [row for row in _LISTS.validate_json(rows) if row]
    except ValidationError as error:
        raise ValueError(
            f"qParams.{where} must be a list of lists of strings, or JSON of one."
        ) from error
