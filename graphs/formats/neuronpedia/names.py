"""Names of nodes in the JSON of circuit-tracer and Neuronpedia.

    node         node_id                      feature               layer   feature_type
    feature      {layer}_{index}_{pos}        cantor(layer, index)  layer   cross layer transcoder
    error        {layer}_-1_{pos}             -1                    layer   mlp reconstruction error
    head         head_{layer}_{index}_{pos}   -1                    layer   attention head
    token        E_{vocabulary}_{pos}         pos                   E       embedding
    position     P_{pos}                      pos                   E       embedding
    bias         bias_{layer}                 -1                    layer   bias
    logit        {L+1}_{vocabulary}_{pos}     vocabulary            L+1     logit
    other target {L+1}_-{number + 1}_{pos}    -1                    L+1     logit

circuit-tracer's reader splits the ids of pinned nodes into three whole numbers.  Its earlier id of
an error, 0_{layer}_{pos}, is also the id of feature {layer} of layer 0; its later one is the one in
the table.  Until November 2026 headwater wrote err_{layer}_{pos} and target_{number}_{pos}.  All of
these are read: the kind comes from feature_type, layer and position from their own fields.  Every
feature is written as "cross layer transcoder", whatever its dictionary, since viewers know no other
type.  Only headwater reads heads.

Other ids that are read:
- EleutherAI's attribute: intermediate_{pos}_{layer}_{index}, error_{pos}_{layer}, input_{i} and
  output_{pos}_{rank}, which contain no vocabulary id;
- OpenMOSS' server: {layer}_error_{pos}, with layers as in `graphs.formats.neuronpedia.counting`,
  which also decides what `feature` means where no id contains the index.

A token whose vocabulary id is unknown has its position as index, and -1 in the header's token_ids;
a logit without a vocabulary id is a target, and so is every logit of a file with custom directions:
circuit-tracer gives those numbers beyond the vocabulary.

Sources: circuit_tracer/frontend/graph_models.py (schema_version 1: feature is a Cantor pair) and
utils/decode_url_features.py, attribute/mlp_attribution.py of EleutherAI/attribute, server/routers/
circuits.py of OpenMOSS/Language-Model-SAEs, and Neuronpedia's util for graphs.
"""

from __future__ import annotations

import math

from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind

CIRCUIT_TRACER_KIND = "cross layer transcoder"  # for every dictionary
FEATURE_TYPES = {
    NodeKind.TOKEN: "embedding",
    NodeKind.POSITION: "embedding",
    NodeKind.BIAS: "bias",
    NodeKind.FEATURE: CIRCUIT_TRACER_KIND,
    NodeKind.ERROR: "mlp reconstruction error",
    NodeKind.LOGIT: "logit",
    NodeKind.TARGET: "logit",
    NodeKind.HEAD: "attention head",
}
_NODE_IDS = {  # node_id, and jsNodeId, which all positions of a feature share in the viewers
    NodeKind.TOKEN: ("E_{index}_{pos}", "E_{index}-{pos}"),
    NodeKind.POSITION: ("P_{pos}", "P-{pos}"),
    NodeKind.BIAS: ("bias_{layer}", "bias_{layer}-0"),
    NodeKind.FEATURE: ("{layer}_{index}_{pos}", "{layer}_{index}-0"),
    NodeKind.ERROR: ("{layer}_-1_{pos}", "{layer}_-1-{pos}"),
    NodeKind.LOGIT: ("{top}_{index}_{pos}", "L_{index}-{pos}"),
    NodeKind.TARGET: ("{top}_-{after}_{pos}", "target_{index}-{pos}"),
    NodeKind.HEAD: ("head_{layer}_{index}_{pos}", "head_{layer}_{index}-{pos}"),
}


def spelled(node: NodeId, top: int) -> tuple[str, str]:
    """node_id and jsNodeId of a node; top is the layer of the logits."""
    after = None if node.index is None else node.index + 1
    fields = {"layer": node.layer, "pos": node.pos, "index": node.index, "after": after, "top": top}
    node_id, js_id = _NODE_IDS[node.kind]
    return node_id.format(**fields), js_id.format(**fields)


def named(text: str, top: int) -> NodeId | None:
    """The node with a node_id as in the table above, of any kind but other targets; else None.

    >>> str(named("12_345_7", 27))
    'feature:12/345@7'
    """
    match text.split("_"):
        case ["head", layer, index, pos] if (layer + index + pos).isdecimal():
            return NodeId(NodeKind.HEAD, layer=int(layer), pos=int(pos), index=int(index))
        case ["E", index, pos] if index.isdecimal() and pos.isdecimal():
            return NodeId(NodeKind.TOKEN, pos=int(pos), index=int(index))
        case [layer, "-1", pos] if layer.isdecimal() and pos.isdecimal():
            return NodeId(NodeKind.ERROR, layer=int(layer), pos=int(pos))
        case [layer, index, pos] if layer.isdecimal() and index.isdecimal() and pos.isdecimal():
            if int(layer) == top:
                return NodeId(NodeKind.LOGIT, pos=int(pos), index=int(index))
            return NodeId(NodeKind.FEATURE, layer=int(layer), pos=int(pos), index=int(index))
        case _:
            return None


def own_spelling(name: str, graph: AttributionGraph) -> str:
    """A node's name in our spelling, if it is in the one above; any other name as it is."""
    return str(named(name, graph.provenance.model.n_layers + 1) or name)


def feature_number(node: NodeId) -> int | None:
    """Value of the field `feature` of a node."""
    if node.kind == NodeKind.FEATURE:
        assert node.layer is not None
        assert node.index is not None
        return cantor(node.layer, node.index)
    if node.kind == NodeKind.LOGIT:
        return node.index
    return node.pos if node.kind in (NodeKind.TOKEN, NodeKind.POSITION) else -1


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
