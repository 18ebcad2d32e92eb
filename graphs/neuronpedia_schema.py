"""Spellings of circuit-tracer and Neuronpedia: their file's shape, and their names of nodes.

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

Sources: circuit_tracer/frontend/graph_models.py (schema_version 1: feature is a Cantor pair) and
Neuronpedia's graph-schema.json; further keys are allowed by both.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from graphs.nodes import NodeId, NodeKind
from graphs.provenance import Provenance

FEATURE_TYPES = {
    NodeKind.TOKEN: "embedding",
    NodeKind.POSITION: "embedding",
    NodeKind.BIAS: "bias",
    NodeKind.FEATURE: "cross layer transcoder",
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


class _Foreign(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Metadata(_Foreign):
    """`metadata`: the prompt, and where the graph came from."""

    slug: str
    scan: str
    transcoder_list: list[str] = []
    prompt_tokens: list[str]
    prompt: str
    node_threshold: float | None = None
    schema_version: int | None = None
    info: dict[str, JsonValue] = {}
    generation_settings: dict[str, JsonValue] = {}
    pruning_settings: dict[str, JsonValue] = {}


class Node(_Foreign):
    """A member of `nodes`."""

    node_id: str
    feature: int | None = None
    layer: str | int
    ctx_idx: int = Field(ge=0, lt=2**31)
    feature_type: str
    token_prob: float = 0.0
    is_target_logit: bool = False
    run_idx: int = 0
    reverse_ctx_idx: int = 0
    jsNodeId: str = ""
    clerp: str = ""
    influence: float | None = None
    activation: float | None = None


class Link(_Foreign):
    """A member of `links`: the signed direct effect of source on target."""

    source: str
    target: str
    weight: float


class Extra(_Foreign):
    """`headwater`: what the format has no field for; the lists run parallel to `nodes`."""

    provenance: Provenance
    weights_dtype: Literal["float32", "float64"]
    value: list[float | None]
    dropped: list[float]
    dropped_absolute: list[float]
    expanded: list[bool]
    output_tokens: dict[int, tuple[str, ...]]


class GraphFile(_Foreign):
    """The whole file."""

    metadata: Metadata
    qParams: dict[str, JsonValue]
    nodes: list[Node]
    links: list[Link]
    headwater: dict[str, JsonValue] = {}


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


def identity(node: Node) -> NodeId:
    """Which node theirs is.  Raises ValueError if that cannot be told."""
    ours = re.fullmatch(r"P_\d+|target_(\d+)_\d+", node.node_id, re.ASCII)
    match node.feature_type:
        case "cross layer transcoder" | "unexplored node":
            return NodeId(NodeKind.FEATURE, _layer(node), node.ctx_idx, _feature_index(node))
        case "mlp reconstruction error":
            return NodeId(NodeKind.ERROR, _layer(node), node.ctx_idx)
        case "bias":
            return NodeId(NodeKind.BIAS, _layer(node))
        case "embedding" if ours:
            return NodeId(NodeKind.POSITION, pos=node.ctx_idx)
        case "embedding":
            return NodeId(NodeKind.TOKEN, pos=node.ctx_idx, index=_middle(node, "E"))
        case "logit" if ours:
            return NodeId(NodeKind.TARGET, pos=node.ctx_idx, index=_number(ours[1], node))
        case "logit":
            return NodeId(NodeKind.LOGIT, pos=node.ctx_idx, index=_middle(node, r"-?\d+"))
        case other:
            raise ValueError(f"Node {node.node_id!r} has the unknown feature_type {other!r}.")


def _feature_index(node: Node) -> int:
    """From the id, else from the Cantor pair, if what they say of the layer fits."""
    layer = _layer(node)
    parts = re.fullmatch(r"(\d+)_(\d+)_(\d+)", node.node_id, re.ASCII)
    if parts and (parts[1], parts[3]) == (str(layer), str(node.ctx_idx)):
        return _number(parts[2], node)
    if node.feature is not None and 0 <= node.feature < 2**63:
        pair = uncantor(node.feature)
        if pair[0] == layer:
            return pair[1]
    raise ValueError(f"Neither id nor number of feature {node.node_id!r} fits layer {layer}.")


def _middle(node: Node, first: str) -> int:
    """The vocabulary entry in the middle of an id."""
    parts = re.fullmatch(rf"{first}_(\d+)_\d+", node.node_id, re.ASCII)
    if not parts:
        raise ValueError(f"Node {node.node_id!r} does not name its vocabulary entry.")
    return _number(parts[1], node)


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
