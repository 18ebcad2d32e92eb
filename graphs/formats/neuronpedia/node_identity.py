"""Which node a member of the JSON of circuit-tracer, Neuronpedia and others is.

How ids are spelled is in `graphs.formats.neuronpedia.names`, what numbers mean in
`graphs.formats.neuronpedia.counting`.
"""

from __future__ import annotations

import re

from graphs.core.nodes import NodeId, NodeKind
from graphs.formats.neuronpedia.counting import Counting, digits
from graphs.formats.neuronpedia.schema import Node


def identity(node: Node, counting: Counting, made: bool = False) -> NodeId:
    """Which node theirs is.  Raises ValueError if that cannot be told.

    made: whether the targets of the file are directions that somebody made.
    """
    pos = node.ctx_idx
    match node.feature_type:
        case "cross layer transcoder" | "unexplored node":
            return NodeId(NodeKind.FEATURE, counting.layer(node), pos, counting.index(node))
        case "mlp reconstruction error":
            return NodeId(NodeKind.ERROR, counting.layer(node), pos)
        case "bias":
            return NodeId(NodeKind.BIAS, counting.layer(node))
        case "embedding" if re.fullmatch(r"P_\d+", node.node_id, re.ASCII):
            return NodeId(NodeKind.POSITION, pos=pos)
        case "embedding":
            entry = _middle(node, "E")
            return NodeId(NodeKind.TOKEN, pos=pos, index=pos if entry is None else entry)
        case "logit":
            return _logit(node, made)
        case other:
            raise ValueError(f"Node {node.node_id!r} has the unknown feature_type {other!r}.")


def names_entry(node: Node) -> bool:
    """Whether the id of a token tells its vocabulary entry."""
    return _middle(node, "E") is not None


def _logit(node: Node, made: bool) -> NodeId:
    number = _target_number(node)
    if number is not None:
        return NodeId(NodeKind.TARGET, pos=node.ctx_idx, index=number)
    entry = _middle(node, r"(?:-?\d+|[EL]\d*)")
    if entry is None:
        entry = node.feature
    if entry is None or not 0 <= entry < 10**18:
        raise ValueError(f"Node {node.node_id!r} does not name its vocabulary entry.")
    kind = NodeKind.TARGET if made else NodeKind.LOGIT
    return NodeId(kind, pos=node.ctx_idx, index=entry)


def _target_number(node: Node) -> int | None:
    """The number of a target that is no vocabulary entry, in our two spellings or EleutherAI's."""
    below = re.fullmatch(r"\d+_-([1-9]\d*)_\d+", node.node_id, re.ASCII)
    if below:
        return digits(below[1], node) - 1
    named = re.fullmatch(r"target_(\d+)_\d+|output_\d+_(\d+)", node.node_id, re.ASCII)
    return digits(named[1] or named[2], node) if named else None


def _middle(node: Node, first: str) -> int | None:
    """The vocabulary entry in the middle of an id; None if the id has another form."""
    parts = re.fullmatch(rf"{first}_(\d+)_\d+", node.node_id, re.ASCII)
    return digits(parts[1], node) if parts else None
