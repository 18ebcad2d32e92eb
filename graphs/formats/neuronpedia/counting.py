"""How a file of another program numbers features and layers, decided once from all its nodes.

The field `feature` of a feature is one of two things:

    pairs   the Cantor pair of layer and index: circuit-tracer since schema_version 1, EleutherAI
    plain   the index itself: OpenMOSS' server and handwritten files; also Anthropic's published
            graphs, which number the features of all layers consecutively

An id that contains layer, index and position gives the index of its node, and the node's `feature`
then shows which of the two the file uses.  If no id does, the file uses pairs if `feature` of every
feature is a pair of its own layer; about one plain number in a hundred is one by coincidence.

`layer` is the layer, except for OpenMOSS' server, which counts attention and MLP as separate
layers, 2l and 2l + 1, and puts logits in layer 2L.

Sources: circuit_tracer/frontend/graph_models.py; attribute/mlp_attribution.py of
EleutherAI/attribute; server/routers/circuits.py of OpenMOSS/Language-Model-SAEs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphs.formats.neuronpedia.names import cantor, uncantor
from graphs.formats.neuronpedia.schema import GraphFile, Node

FEATURES = ("cross layer transcoder", "unexplored node")  # feature_type of a feature
_OWN = re.compile(r"(?P<layer>\d+)_(?P<index>\d+)_(?P<pos>\d+)", re.ASCII)
_ATTRIBUTE = re.compile(r"intermediate_(?P<pos>\d+)_(?P<layer>\d+)_(?P<index>\d+)", re.ASCII)
_BLOCK_ERROR = re.compile(r"\d+_error_\d+", re.ASCII)
_BLOCK_NAMES = ("lorsa_analysis_name", "tc_analysis_name", "clt_analysis_name")
_MLP = (*FEATURES, "mlp reconstruction error")


@dataclass(frozen=True)
class Counting:
    """Meaning of `feature` and `layer` in a file."""

    pairs: bool  # whether `feature` is a Cantor pair
    halves: bool  # whether attention and MLP count as separate layers
    remarks: tuple[str, ...] = ()  # assumptions that were made

    def layer(self, node: Node) -> int:
        """The layer of a node.  Raises ValueError if it has none."""
        counted = _counted(node)
        if not self.halves:
            return counted
        if node.feature_type not in _MLP or counted % 2 == 0:
            raise ValueError(
                f"Node {node.node_id!r} of kind {node.feature_type!r} has layer {counted}; "
                "OpenMOSS' server numbers MLPs 1, 3, 5 and so on."
            )
        return counted // 2

    def depth(self, top: int) -> int:
        """Number of layers of a model whose logits are in layer `top` of the file."""
        return top // 2 if self.halves else top - 1

    def index(self, node: Node) -> int:
        """The index of a feature, from its id, else its number.  Raises ValueError."""
        if (index := _named(node)) is not None:
            return index
        if self.pairs:
            index = _paired(node)
        elif _parts(node) is None:  # otherwise its id is for another layer or position
            index = _number(node)
        if index is None:
            raise ValueError(
                f"Neither id nor number of feature {node.node_id!r} fits layer {node.layer}."
            )
        return index


def counting(file: GraphFile) -> Counting:
    """Numbering of a file.  Raises ValueError if its nodes contradict each other."""
    halves = _halves(file)
    pairs, remark = _pairs(
        [node for node in file.nodes if node.feature_type in FEATURES],
        declared=file.metadata.schema_version == 1 and not halves,
    )
    remarks = [remark] if remark else []
    if halves:
        remarks.append(
            "Layers are numbered as by OpenMOSS' server, attention as 2l and MLPs as 2l + 1; both "
            "are read as layer l."
        )
    return Counting(pairs, halves, tuple(remarks))


def digits(text: str, node: Node, most: int = 18) -> int:
    """The whole number in a text of a node.  Raises ValueError if it is none or too long."""
    if not re.fullmatch(rf"\d{{1,{most}}}", text, re.ASCII):
        raise ValueError(f"Node {node.node_id!r} has {text!r} where a whole number is expected.")
    return int(text)


def _pairs(features: list[Node], declared: bool) -> tuple[bool, str]:
    """Whether numbers are pairs, and a remark if that was inferred from the numbers alone."""
    unnamed = [node for node in features if _named(node) is None]
    shown = [
        (node, number, index)
        for node in features
        if (index := _named(node)) is not None and (number := _number(node)) is not None
    ]
    may_be_pairs = all(number == cantor(_counted(node), index) for node, number, index in shown)
    may_be_plain = not declared and all(number == index for _, number, index in shown)
    paired = sum(_paired(node) is not None for node in unnamed)
    if unnamed and not may_be_pairs and not may_be_plain:
        raise ValueError(
            f"The index of feature {unnamed[0].node_id!r} is ambiguous: for nodes with ids that "
            "state it, `feature` is neither the index nor the Cantor pair of layer and index."
        )
    pairs = may_be_pairs and (not may_be_plain or paired == len(unnamed))
    if not (may_be_pairs and may_be_plain and paired):
        return pairs, ""
    meaning = "a Cantor pair of layer and index" if pairs else "the index itself"
    return pairs, (
        "Neither ids nor schema_version state how features are numbered: `feature` is read as "
        f"{meaning}, since {paired:,} of {len(unnamed):,} numbers are pairs of their own layer."
    )


def _parts(node: Node) -> re.Match[str] | None:
    """Layer, index and position in an id of a feature; None if the id has another form."""
    return _OWN.fullmatch(node.node_id) or _ATTRIBUTE.fullmatch(node.node_id)


def _named(node: Node) -> int | None:
    """The index in the id, if the layer and position in the id are the node's own."""
    parts = _parts(node)
    if parts is None or (parts["layer"], parts["pos"]) != (str(node.layer), str(node.ctx_idx)):
        return None
    return digits(parts["index"], node)


def _counted(node: Node) -> int:
    """The layer as numbered in the file."""
    return digits(str(node.layer), node, most=6)


def _number(node: Node) -> int | None:
    return node.feature if node.feature is not None and 0 <= node.feature < 10**18 else None


def _paired(node: Node) -> int | None:
    """The index, if the number is a Cantor pair of the node's own layer."""
    number = _number(node)
    if number is None:
        return None
    layer, index = uncantor(number)
    return index if layer == _counted(node) else None


def _halves(file: GraphFile) -> bool:
    """Whether a file is from OpenMOSS' server: by a sure sign, or by two others and its layers."""
    if any(
        "is_from_qk_tracing" in node.raw
        or (node.feature_type.endswith("error") and _BLOCK_ERROR.fullmatch(node.node_id))
        for node in file.nodes
    ):
        return True
    signs = (
        any(name in file.metadata.raw for name in _BLOCK_NAMES),
        any(n.feature_type == "embedding" and str(n.layer) == "-1" for n in file.nodes),
        any(n.feature_type == "logit" and "token" in n.raw and not n.clerp for n in file.nodes),
        any(n.feature_type in FEATURES and "sae_name" in n.raw for n in file.nodes),
    )
    layers = [str(node.layer) for node in file.nodes if node.feature_type in _MLP]
    return sum(signs) > 1 and all(layer.endswith(tuple("13579")) for layer in layers)
