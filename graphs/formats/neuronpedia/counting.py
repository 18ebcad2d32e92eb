"""How a file of another program counts features and layers, decided once from all its nodes.

`feature` of a feature is one of two things:

    pairs   the Cantor pair of layer and index: circuit-tracer since schema_version 1, EleutherAI
    plain   the index itself: OpenMOSS' server and files by hand; also Anthropic's published
            graphs, which number all features of a model through

An id that holds layer, index and position decides for its own node, and the number beside it shows
what the file means by numbers.  Where nothing else is known, a file means pairs if the number of
every such feature is a pair of its own layer: about one plain number in a hundred is one too.

`layer` is the layer, but for OpenMOSS' server, whose attention and MLP count as layers of their
own, 2l and 2l + 1, and whose logits stand in layer 2L.

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
    """What `feature` and `layer` mean in a file."""

    pairs: bool  # whether numbers that decide are Cantor pairs
    halves: bool  # whether attention and MLP count as layers of their own
    remarks: tuple[str, ...] = ()  # what had to be decided

    def layer(self, node: Node) -> int:
        """The layer of a node.  Raises ValueError if it has none."""
        counted = _counted(node)
        if not self.halves:
            return counted
        if node.feature_type not in _MLP or counted % 2 == 0:
            raise ValueError(
                f"Node {node.node_id!r} of kind {node.feature_type!r} has layer {counted}, where "
                "OpenMOSS' server counts MLPs as layers 1, 3, 5 and so on."
            )
        return counted // 2

    def depth(self, top: int) -> int:
        """Layers of a model whose logits stand in layer `top` of the file."""
        return top // 2 if self.halves else top - 1

    def index(self, node: Node) -> int:
        """The index of a feature, from its id, else its number.  Raises ValueError."""
        if (index := _named(node)) is not None:
            return index
        if self.pairs:
            index = _paired(node)
        elif _parts(node) is None:  # else its id is of another place
            index = _number(node)
        if index is None:
            raise ValueError(
                f"Neither id nor number of feature {node.node_id!r} fits layer {node.layer}."
            )
        return index


def counting(file: GraphFile) -> Counting:
    """How a file counts.  Raises ValueError if its nodes contradict each other."""
    halves = _halves(file)
    pairs, remark = _pairs(
        [node for node in file.nodes if node.feature_type in FEATURES],
        promised=file.metadata.schema_version == 1 and not halves,
    )
    remarks = [remark] if remark else []
    if halves:
        remarks.append(
            "Layers are counted as OpenMOSS' server does, attention as 2l and MLPs as 2l + 1, and "
            "are read as l."
        )
    return Counting(pairs, halves, tuple(remarks))


def digits(text: str, node: Node, most: int = 18) -> int:
    """A whole number that a node has as text.  Raises ValueError if it is none or too long."""
    if not re.fullmatch(rf"\d{{1,{most}}}", text, re.ASCII):
        raise ValueError(f"Node {node.node_id!r} has {text!r} where a number belongs.")
    return int(text)


def _pairs(features: list[Node], promised: bool) -> tuple[bool, str]:
    """Whether numbers are pairs, and a sentence if that was concluded from the numbers alone."""
    silent = [node for node in features if _named(node) is None]
    shown = [
        (node, number, index)
        for node in features
        if (index := _named(node)) is not None and (number := _number(node)) is not None
    ]
    may_be_pairs = all(number == cantor(_counted(node), index) for node, number, index in shown)
    may_be_plain = not promised and all(number == index for _, number, index in shown)
    paired = sum(_paired(node) is not None for node in silent)
    if silent and not may_be_pairs and not may_be_plain:
        raise ValueError(
            f"The index of feature {silent[0].node_id!r} cannot be told: beside the ids of others "
            "`feature` is neither their index nor a Cantor pair of layer and index."
        )
    pairs = may_be_pairs and (not may_be_plain or paired == len(silent))
    if not (may_be_pairs and may_be_plain and paired):
        return pairs, ""
    meaning = "a Cantor pair of layer and index" if pairs else "the index itself"
    return pairs, (
        "Neither ids nor schema_version say how features are numbered: `feature` is read as "
        f"{meaning}, since {paired:,} of {len(silent):,} numbers are pairs of their own layer."
    )


def _parts(node: Node) -> re.Match[str] | None:
    """Layer, index and position, if the id has the form of a feature's."""
    return _OWN.fullmatch(node.node_id) or _ATTRIBUTE.fullmatch(node.node_id)


def _named(node: Node) -> int | None:
    """The index in the id, if layer and position there are the node's own."""
    parts = _parts(node)
    if parts is None or (parts["layer"], parts["pos"]) != (str(node.layer), str(node.ctx_idx)):
        return None
    return digits(parts["index"], node)


def _counted(node: Node) -> int:
    """The layer as the file counts."""
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
    """Whether it is of OpenMOSS' server, or looks like it in two ways and counts like it."""
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
