"""NodeId of a node in the JSON of circuit-tracer, Neuronpedia and others.

Formats of ids are in `graphs.formats.neuronpedia.names`, the meaning of numbers in
`graphs.formats.neuronpedia.counting`.
"""

from __future__ import annotations

import re

from graphs.core.nodes import NodeId, NodeKind
from graphs.formats.neuronpedia.counting import Counting, digits
from graphs.formats.neuronpedia.schema import Node


def identity(node: Node, counting: Counting, custom: bool = False) -> NodeId:
    """NodeId of a node of a file.  Raises ValueError if it cannot be determined.

    custom: whether the targets of the file are custom directions.
    """
    pos = node.ctx_idx
    match node.feature_type:
        case "cross layer transcoder" | "unexplored node":
            return NodeId(NodeKind.FEATURE, counting.layer(node), pos, counting.index(node))
        case "mlp reconstruction error":
            return NodeId(NodeKind.ERROR, counting.layer(node), pos)
        case "bias":
            return NodeId(NodeKind.BIAS, counting.layer(node))
        case "attention head":
            return NodeId(NodeKind.HEAD, counting.layer(node), pos, _head(node))
        case "embedding" if re.fullmatch(r"P_\d+", node.node_id, re.ASCII):
            return NodeId(NodeKind.POSITION, pos=pos)
        case "embedding":
            token_id = _middle(node, "E")
            return NodeId(NodeKind.TOKEN, pos=pos, index=pos if token_id is None else token_id)
        case "logit":
            return _logit(node, custom)
        case other:
            raise ValueError(f"Node {node.node_id!r} has the unknown feature_type {other!r}.")


def has_vocabulary_id(node: Node) -> bool:
    """Whether the node_id of a token contains its vocabulary id."""
    return _middle(node, "E") is not None


def _logit(node: Node, custom: bool) -> NodeId:
    number = _target_number(node)
    if number is not None:
        return NodeId(NodeKind.TARGET, pos=node.ctx_idx, index=number)
    token_id = _middle(node, r"(?:-?\d+|[EL]\d*)")
    if token_id is None:
        token_id = node.feature
    if token_id is None or not 0 <= token_id < 10**18:
        raise ValueError(f"Node {node.node_id!r} does not state its vocabulary id.")
    kind = NodeKind.TARGET if custom else NodeKind.LOGIT
    return NodeId(kind, pos=node.ctx_idx, index=token_id)


def _head(node: Node) -> int:
    named = re.fullmatch(r"head_\d+_(\d+)_\d+", node.node_id, re.ASCII)
    if named is None:
        raise ValueError(f"Node {node.node_id!r} does not state its head.")
    return digits(named[1], node)


def _target_number(node: Node) -> int | None:
    """Number of a target that is not a token, from headwater's two forms of id or EleutherAI's."""
    below = re.fullmatch(r"\d+_-([1-9]\d*)_\d+", node.node_id, re.ASCII)
    if below:
        return digits(below[1], node) - 1
    named = re.fullmatch(r"target_(\d+)_\d+|output_\d+_(\d+)", node.node_id, re.ASCII)
    return digits(named[1] or named[2], node) if named else None


def _middle(node: Node, first: str) -> int | None:
    """The vocabulary id in the middle of a node_id; None if it has another form."""
    parts = re.fullmatch(rf"{first}_(\d+)_\d+", node.node_id, re.ASCII)
    return digits(parts[1], node) if parts else None
