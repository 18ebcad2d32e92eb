"""Nodes: what a graph is made of, and the one spelling of their names.

A node is a value, `NodeId(kind, layer, pos, index)`.  Its text form is canonical and
`NodeId.parse` is the inverse of `str`:

    token:4@7          vocabulary entry 4 at position 7, as it enters layer 0
    position:7         the learned position embedding of position 7 (GPT-2)
    bias:5             every constant that enters the residual stream at layer 5
    feature:12/345@7   row 345 of layer 12's dictionary, active at position 7
    error:5@3          what layer 5's dictionary leaves unexplained at position 3
    logit:4@7          vocabulary entry 4, predicted at position 7
    target:0@7         any other direction at position 7: a contrast or a vector
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


class NodeKind(IntEnum):
    """Kinds in the order in which they are listed; the numbers are part of the file format."""

    TOKEN = 0
    POSITION = 1
    BIAS = 2
    FEATURE = 3
    ERROR = 4
    LOGIT = 5
    TARGET = 6

    @property
    def word(self) -> str:
        return self.name.lower()


INPUT_KINDS = (NodeKind.TOKEN, NodeKind.POSITION)
TARGET_KINDS = (NodeKind.LOGIT, NodeKind.TARGET)

_FIELDS = {  # which of layer, pos, index a kind has, and how they are written
    NodeKind.TOKEN: ("{index}@{pos}", r"(?P<index>\d+)@(?P<pos>\d+)"),
    NodeKind.POSITION: ("{pos}", r"(?P<pos>\d+)"),
    NodeKind.BIAS: ("{layer}", r"(?P<layer>\d+)"),
    NodeKind.FEATURE: ("{layer}/{index}@{pos}", r"(?P<layer>\d+)/(?P<index>\d+)@(?P<pos>\d+)"),
    NodeKind.ERROR: ("{layer}@{pos}", r"(?P<layer>\d+)@(?P<pos>\d+)"),
    NodeKind.LOGIT: ("{index}@{pos}", r"(?P<index>\d+)@(?P<pos>\d+)"),
    NodeKind.TARGET: ("{index}@{pos}", r"(?P<index>\d+)@(?P<pos>\d+)"),
}
_PATTERNS = {kind: re.compile(f"{kind.word}:{pattern}") for kind, (_, pattern) in _FIELDS.items()}


@dataclass(frozen=True, order=True)
class NodeId:
    """Which node this is; fields that a kind does not have are None.

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
        form = _FIELDS[self.kind][0].format(layer=self.layer, pos=self.pos, index=self.index)
        return f"{self.kind.word}:{form}"

    @classmethod
    def parse(cls, text: str) -> NodeId:
        """The node that `text` names.  Raises ValueError for anything but a canonical name."""
        for kind, pattern in _PATTERNS.items():
            if match := pattern.fullmatch(text):
                return cls(kind, **{name: int(value) for name, value in match.groupdict().items()})
        raise ValueError(
            f"{text!r} is not a node: expected feature:LAYER/INDEX@POS, error:LAYER@POS, "
            "token:ID@POS, position:POS, bias:LAYER, logit:ID@POS or target:N@POS."
        )


@dataclass(frozen=True)
class NodeTable:
    """All nodes of a graph as columns, in topological order; -1 stands for a missing field."""

    kind: Int[ndarray, " node"]  # NodeKind
    layer: Int[ndarray, " node"]  # block at which the node enters or is read; -1: none
    pos: Int[ndarray, " node"]  # token position, 0 = first token of the prompt; -1: none
    index: Int[ndarray, " node"]  # row of the dictionary, vocabulary id, or target number
    activation: Float[ndarray, " node"]  # features: after the nonlinearity; nan elsewhere
    value: Float[ndarray, " node"]  # what incoming weights must sum to, where known; else nan

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, node: int) -> NodeId:
        fields = (int(column[node]) for column in (self.layer, self.pos, self.index))
        layer, pos, index = (None if field < 0 else field for field in fields)
        return NodeId(NodeKind(int(self.kind[node])), layer, pos, index)

    def is_kind(self, *kinds: NodeKind) -> Bool[ndarray, " node"]:
        """Mask of the nodes of these kinds."""
        return np.isin(self.kind, kinds)

    def has_duplicates(self) -> bool:
        """Whether two rows are the same node."""
        keys = (self.index, self.pos, self.layer, self.kind)
        order = np.lexsort(keys)
        same = [np.diff(key[order]) == 0 for key in keys]
        return bool(np.any(np.logical_and.reduce(same)))

    def take(self, nodes: Int[ndarray, " kept"]) -> NodeTable:
        """The same table with only these nodes, in the order given."""
        return NodeTable(*(column[nodes] for column in self.columns().values()))

    def columns(self) -> dict[str, ndarray]:
        """Columns by name, in the order of the constructor."""
        return dict(self.__dict__)
