"""Nodes of a graph, their canonical names, and descriptions of features.

A node is a value, `NodeId(kind, layer, pos, index)`.  Its text form is canonical and
`NodeId.parse` is the inverse of `str`:

    token:4@7          vocabulary entry 4 at position 7, as it enters layer 0
    position:7         the learned position embedding of position 7 (GPT-2)
    bias:5             every constant that enters the residual stream at layer 5
    feature:12/345@7   row 345 of layer 12's dictionary, active at position 7
    error:5@3          what layer 5's dictionary leaves unexplained at position 3
    logit:4@7          vocabulary entry 4, predicted at position 7
    target:0@7         any other direction at position 7: a contrast or a vector
    norm:18/0@7        what the norm in front of layer 18's MLP divides by at position 7
    attention_norm:18/0@7   the same in front of attention
    gate:12/345@7      what neuron 345 of layer 12 applies its activation function to
    head:4/5@8         attention head 5 of layer 4 at position 8, where it writes

Norms and gates are not nodes of a graph, but stand in its file (`graphs.core.responses`).
A description is what is known of a feature over many prompts: its label, promoted tokens and top
activations.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pydantic import AfterValidator, Field, model_validator

from graphs.core.brief import Brief
from graphs.core.records import Record


class NodeKind(IntEnum):
    """Kinds in the order in which they are listed; the numbers are part of the file format."""

    TOKEN = 0
    POSITION = 1
    BIAS = 2
    FEATURE = 3
    ERROR = 4
    LOGIT = 5
    TARGET = 6
    NORM = 7
    ATTENTION_NORM = 8
    GATE = 9
    HEAD = 10

    @property
    def word(self) -> str:
        return self.name.lower()


INPUT_KINDS = (NodeKind.TOKEN, NodeKind.POSITION)
TARGET_KINDS = (NodeKind.LOGIT, NodeKind.TARGET)
RESPONSE_KINDS = (NodeKind.NORM, NodeKind.ATTENTION_NORM, NodeKind.GATE)

MOST = 10**18 - 1  # largest layer, position or index
_NUMBER = "(?:0|[1-9][0-9]{0,17})"  # one spelling per number, up to MOST
_SPELLING = {  # which of layer, pos, index a kind has, in what form
    NodeKind.TOKEN: "{index}@{pos}",
    NodeKind.POSITION: "{pos}",
    NodeKind.BIAS: "{layer}",
    NodeKind.FEATURE: "{layer}/{index}@{pos}",
    NodeKind.ERROR: "{layer}@{pos}",
    NodeKind.LOGIT: "{index}@{pos}",
    NodeKind.TARGET: "{index}@{pos}",
    NodeKind.NORM: "{layer}/{index}@{pos}",
    NodeKind.ATTENTION_NORM: "{layer}/{index}@{pos}",
    NodeKind.GATE: "{layer}/{index}@{pos}",
    NodeKind.HEAD: "{layer}/{index}@{pos}",
}
_FIELDS = ("layer", "pos", "index")
_HAS = np.array([[f"{{{name}}}" in _SPELLING[kind] for name in _FIELDS] for kind in NodeKind])
_PATTERNS = {
    kind: re.compile(
        f"{kind.word}:" + spelling.format(**{name: f"(?P<{name}>{_NUMBER})" for name in _FIELDS})
    )
    for kind, spelling in _SPELLING.items()
}


@dataclass(frozen=True, order=True)
class NodeId:
    """Identity of a node; fields that its kind does not have are None.

    >>> NodeId.parse("feature:12/345@7")
    NodeId(kind=<NodeKind.FEATURE: 3>, layer=12, pos=7, index=345)
    >>> str(NodeId(NodeKind.ERROR, layer=5, pos=3))
    'error:5@3'
    """

    kind: NodeKind
    layer: int | None = None
    pos: int | None = None
    index: int | None = None

    def __str__(self) -> str:
        form = _SPELLING[self.kind].format(layer=self.layer, pos=self.pos, index=self.index)
        return f"{self.kind.word}:{form}"

    @classmethod
    def parse(cls, text: str) -> NodeId:
        """The node with a canonical name.  Raises ValueError for any other text."""
        for kind, pattern in _PATTERNS.items():
            if match := pattern.fullmatch(text):
                return cls(kind, **{name: int(value) for name, value in match.groupdict().items()})
        raise ValueError(
            f"{text!r} is not a node: expected feature:LAYER/INDEX@POS, error:LAYER@POS, "
            "head:LAYER/HEAD@POS, token:ID@POS, position:POS, bias:LAYER, logit:ID@POS or "
            "target:N@POS."
        )


def _is_node(name: str) -> str:
    NodeId.parse(name)
    return name


NodeName = Annotated[str, AfterValidator(_is_node)]  # in records


@dataclass(frozen=True, repr=False)
class NodeTable(Brief):
    """All nodes of a graph as columns, in topological order; -1 stands for a missing field.

    Raises ValueError if columns differ in length or a node lacks fields of its kind or has others.
    """

    kind: Int[ndarray, " node"]  # NodeKind
    layer: Int[ndarray, " node"]  # block at which the node enters or is read; -1: none
    pos: Int[ndarray, " node"]  # token position, 0 = first token of the prompt; -1: none
    index: Int[ndarray, " node"]  # row of the dictionary, head, vocabulary id, or target number
    activation: Float[ndarray, " node"]  # features: after the nonlinearity; nan elsewhere
    value: Float[ndarray, " node"]  # sum of incoming weights, where known; else nan

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns().items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Node columns must have one length, got {lengths}.")
        unknown = (self.kind < 0) | (self.kind >= len(NodeKind))
        if np.any(unknown):
            raise ValueError(f"Unknown node kind {self.kind[unknown][0]}.")
        fields = np.stack([self.layer, self.pos, self.index], axis=1)
        if np.any(fields > MOST):
            raise ValueError(
                f"Layers, positions and indices go up to {MOST:,}, got {fields.max():,}."
            )
        wrong = np.any((fields >= 0) != _HAS[self.kind], axis=1) | np.any(fields < -1, axis=1)
        if np.any(wrong):
            node = int(np.flatnonzero(wrong)[0])
            kind = NodeKind(int(self.kind[node]))
            raise ValueError(
                f"Node {node} has the form {kind.word}:{_SPELLING[kind]}, with -1 in all other "
                f"fields, got layer {self.layer[node]}, pos {self.pos[node]}, "
                f"index {self.index[node]}."
            )

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, node: int) -> NodeId:
        return _node_id(*(int(column[node]) for column in self._identity()))

    def __iter__(self) -> Iterator[NodeId]:
        columns: list[list[int]] = [column.tolist() for column in self._identity()]
        return map(_node_id, *columns)

    def is_kind(self, *kinds: NodeKind) -> Bool[ndarray, " node"]:
        """Mask of the nodes of these kinds."""
        return np.isin(self.kind, kinds)

    def has_duplicates(self) -> bool:
        """Whether two rows are the same node."""
        keys = self._identity()
        order = np.lexsort(keys)
        same = [np.diff(key[order]) == 0 for key in keys]
        return bool(np.any(np.logical_and.reduce(same)))

    def take(self, nodes: Int[ndarray, " kept"]) -> NodeTable:
        """The same table with only these nodes, in the order given."""
        return NodeTable(*(column[nodes] for column in self.columns().values()))

    def columns(self) -> dict[str, ndarray]:
        """Columns by name, in the order of the constructor."""
        return dict(self.__dict__)

    def _identity(self) -> tuple[Int[ndarray, " node"], ...]:
        return self.kind, self.layer, self.pos, self.index


def _node_id(kind: int, *fields: int) -> NodeId:
    return NodeId(NodeKind(kind), *(None if field < 0 else field for field in fields))


class Example(Record):
    """One text, and the feature's activation at each of its tokens."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> Example:
        if len(self.tokens) != len(self.activations):
            raise ValueError(
                f"Expected one activation per token, got {len(self.activations)} for "
                f"{len(self.tokens)} tokens."
            )
        return self


class Description(Record):
    """Description of one feature of a dictionary."""

    label: str  # in a few words; may be empty
    promoted_at_own_layer: tuple[str, ...] = Field(  # by what it writes at its own layer alone
        default=(), validation_alias="said", serialization_alias="said"
    )
    promoted: tuple[str, ...] = Field(  # tokens whose logits it raises most, over all layers
        default=(), validation_alias="raised", serialization_alias="raised"
    )
    suppressed: tuple[str, ...] = Field(  # tokens whose logits it lowers most
        default=(), validation_alias="lowered", serialization_alias="lowered"
    )
    frequency: float | None = Field(default=None, ge=0.0, le=1.0)  # share of tokens it fires on
    histogram: tuple[int, ...] = ()  # activations above 0 in equal bins up to the largest
    largest: float | None = None  # activation
    examples: tuple[Example, ...] = ()  # strongest first
