"""Names of nodes in the JSON of circuit-tracer and Neuronpedia, as they are written and read.

    node         node_id                  feature               layer   feature_type
    feature      {layer}_{index}_{pos}    cantor(layer, index)  layer   cross layer transcoder
    error        err_{layer}_{pos}        -1                    layer   mlp reconstruction error
    token        E_{vocabulary}_{pos}     pos                   E       embedding
    position     P_{pos}                  pos                   E       embedding
    bias         bias_{layer}             -1                    layer   bias
    logit        {L+1}_{vocabulary}_{pos} vocabulary            L+1     logit
    other target target_{number}_{pos}    -1                    L+1     logit

Errors get an id of their own since circuit-tracer's first one, 0_{layer}_{pos}, is also that of
feature number {layer} of layer 0; its later one is {layer}_-1_{pos}.  Both are read: the kind is
decided by feature_type, layer and position by their own fields.  A feature is written as "cross
layer transcoder" whatever its dictionary, since the viewers know no other word.

Read as well:
- EleutherAI's attribute: intermediate_{pos}_{layer}_{index}, error_{pos}_{layer}, input_{i} and
  output_{pos}_{rank}, which say nothing about the vocabulary;
- Anthropic's published graphs, whose `feature` numbers all features of a model through and is
  no Cantor pair: it is the index, if the id holds none.

A token whose vocabulary entry no field tells has its position as index, and -1 in the header's
token_ids; a logit without one is a target.

Sources: circuit_tracer/frontend/graph_models.py (schema_version 1: feature is a Cantor pair),
attribute/mlp_attribution.py of EleutherAI/attribute, and Neuronpedia's util for graphs.
"""

from __future__ import annotations

import math
import re

from graphs.neuronpedia_schema import Node
from graphs.nodes import NodeId, NodeKind

CIRCUIT_TRACER_KIND = "cross layer transcoder"  # of every dictionary
FEATURE_TYPES = {
    NodeKind.TOKEN: "embedding",
    NodeKind.POSITION: "embedding",
    NodeKind.BIAS: "bias",
    NodeKind.FEATURE: CIRCUIT_TRACER_KIND,
    NodeKind.ERROR: "mlp reconstruction error",
    NodeKind.LOGIT: "logit",
    NodeKind.TARGET: "logit",
}
_NODE_IDS = {  # and jsNodeId, which the viewers share between positions of a feature
    NodeKind.TOKEN: ("E_{index}_{pos}", "E_{index}-{pos}"),
    NodeKind.POSITION: ("P_{pos}", "P-{pos}"),
    NodeKind.BIAS: ("bias_{layer}", "bias_{layer}-0"),
    NodeKind.FEATURE: ("{layer}_{index}_{pos}", "{layer}_{index}-0"),
    NodeKind.ERROR: ("err_{layer}_{pos}", "err_{layer}-{pos}"),
    NodeKind.LOGIT: ("{top}_{index}_{pos}", "L_{index}-{pos}"),
    NodeKind.TARGET: ("target_{index}_{pos}", "target_{index}-{pos}"),
}


def spelled(node: NodeId, top: int) -> tuple[str, str]:
    """node_id and jsNodeId of a node; top is the layer of the logits."""
    fields = {"layer": node.layer, "pos": node.pos, "index": node.index, "top": top}
    node_id, js_id = _NODE_IDS[node.kind]
    return node_id.format(**fields), js_id.format(**fields)


def feature_number(node: NodeId) -> int | None:
    """The member `feature` of a node."""
    if node.kind == NodeKind.FEATURE:
        assert node.layer is not None
        assert node.index is not None
        return cantor(node.layer, node.index)
    if node.kind == NodeKind.LOGIT:
        return node.index
    return node.pos if node.kind in (NodeKind.TOKEN, NodeKind.POSITION) else -1


def identity(node: Node, pairs: bool = False) -> NodeId:
    """Which node theirs is.  Raises ValueError if that cannot be told.

    pairs: whether the file says that features are numbered by Cantor pairs, so that another
    number is a fault.
    """
    pos = node.ctx_idx
    position = re.fullmatch(r"P_\d+", node.node_id, re.ASCII)
    target = re.fullmatch(r"target_(\d+)_\d+", node.node_id, re.ASCII)
    match node.feature_type:
        case "cross layer transcoder" | "unexplored node":
            return NodeId(NodeKind.FEATURE, _layer(node), pos, _feature_index(node, pairs))
        case "mlp reconstruction error":
            return NodeId(NodeKind.ERROR, _layer(node), pos)
        case "bias":
            return NodeId(NodeKind.BIAS, _layer(node))
        case "embedding" if position:
            return NodeId(NodeKind.POSITION, pos=pos)
        case "embedding":
            entry = _middle(node, "E")
            return NodeId(NodeKind.TOKEN, pos=pos, index=pos if entry is None else entry)
        case "logit" if target:
            return NodeId(NodeKind.TARGET, pos=pos, index=_number(target[1], node))
        case "logit":
            return _logit(node)
        case other:
            raise ValueError(f"Node {node.node_id!r} has the unknown feature_type {other!r}.")


def names_entry(node: Node) -> bool:
    """Whether the id of a token tells its vocabulary entry."""
    return _middle(node, "E") is not None


def _logit(node: Node) -> NodeId:
    ranked = re.fullmatch(r"output_\d+_(\d+)", node.node_id, re.ASCII)
    if ranked:
        return NodeId(NodeKind.TARGET, pos=node.ctx_idx, index=_number(ranked[1], node))
    entry = _middle(node, r"(?:-?\d+|[EL]\d*)")
    if entry is None:
        entry = node.feature
    if entry is None or not 0 <= entry < 10**18:
        raise ValueError(f"Node {node.node_id!r} does not name its vocabulary entry.")
    return NodeId(NodeKind.LOGIT, pos=node.ctx_idx, index=entry)


def _feature_index(node: Node, pairs: bool) -> int:
    """From the id, else from the number: a Cantor pair of this layer, else as it stands."""
    layer = _layer(node)
    parts = re.fullmatch(
        r"(?P<layer>\d+)_(?P<index>\d+)_(?P<pos>\d+)"
        r"|intermediate_(?P<pos_>\d+)_(?P<layer_>\d+)_(?P<index_>\d+)",
        node.node_id,
        re.ASCII,
    )
    if parts:
        found = [parts[name] or parts[f"{name}_"] for name in ("layer", "index", "pos")]
        if (found[0], found[2]) == (str(layer), str(node.ctx_idx)):
            return _number(found[1], node)
    if node.feature is not None and 0 <= node.feature < 10**18:
        of_layer, index = uncantor(node.feature)
        if of_layer == layer:
            return index
        if not pairs and not parts:
            return node.feature
    raise ValueError(f"Neither id nor number of feature {node.node_id!r} fits layer {layer}.")


def _middle(node: Node, first: str) -> int | None:
    """The vocabulary entry in the middle of an id; None if the id has another form."""
    parts = re.fullmatch(rf"{first}_(\d+)_\d+", node.node_id, re.ASCII)
    return _number(parts[1], node) if parts else None


def _layer(node: Node) -> int:
    return _number(str(node.layer), node, digits=6)


def _number(text: str, node: Node, digits: int = 18) -> int:
    if not re.fullmatch(rf"\d{{1,{digits}}}", text, re.ASCII):
        raise ValueError(f"Node {node.node_id!r} has {text!r} where a number belongs.")
    return int(text)


def cantor(layer: int, index: int) -> int:
    """One number for a layer and an index.

    >>> cantor(3, 77), uncantor(3317)
    (3317, (3, 77))
    """
    return (layer + index) * (layer + index + 1) // 2 + index


def uncantor(number: int) -> tuple[int, int]:
    """Layer and index of a number from `cantor`, in whole numbers, so exact beyond 2**53."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    index = number - diagonal * (diagonal + 1) // 2
    return diagonal - index, index
