"""Edits: what an intervention changes, said in names of a graph's nodes.

    Set("feature:12/345@7", 0)         the activation is 0
    Scale("supernode:Texas", -1)       of each feature -1 times its own; errors can be scaled too
    Add("concept:Texas", 2.5)          2.5 more
    Swap("Texas", "California", other) the first off, the second as active as in another graph
    Push(4, 7, vector, 2.0)            2 · vector more in the residual stream behind block 4

Names are those of `graphs.select`; a feature at a position need not be active there.  A `+` behind
a name, or `onward` of a push, means that position and all later ones, new tokens too.

Whatever the edits are called, each node's new activation is factor · own + offset, and no node is
edited twice: so their order is of no matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.annotations import NO_ANNOTATIONS, Annotations
from graphs.graph import AttributionGraph
from graphs.nodes import NodeId, NodeKind
from graphs.positions import align_prompts
from graphs.select import KINDS, SelectionError, select


class EditError(ValueError):
    """Edits that cannot be made; the text is one sentence that says what can."""


@dataclass(frozen=True)
class Set:
    """Features get this activation."""

    nodes: str
    value: float

    def __str__(self) -> str:
        return f"{self.nodes} to {self.value:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return 0.0, self.value


@dataclass(frozen=True)
class Scale:
    """Features and errors become this many times what they are."""

    nodes: str
    factor: float

    def __str__(self) -> str:
        return f"{self.nodes} × {self.factor:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return self.factor, 0.0


@dataclass(frozen=True)
class Add:
    """Features get so much more activation."""

    nodes: str
    amount: float

    def __str__(self) -> str:
        return f"{self.nodes} + {self.amount:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return 1.0, self.amount


@dataclass(frozen=True)
class Push:
    """amount · vector is added to the residual stream behind a block."""

    layer: int
    pos: int
    vector: Float[ndarray, " d_model"]
    amount: float = 1.0
    onward: bool = False

    def __str__(self) -> str:
        return f"residual:{self.layer}@{self.pos}{'+' * self.onward} + {self.amount:g} · vector"


@dataclass(frozen=True)
class Swap:
    """What one name selects is off; what the other selects in another graph is on as it is there.

    A bare name is a group, or else a concept.  Two concepts say where, and matching what: at every
    layer and position at which each is in its graph, this prompt's features become the other's.
    Positions are those that stand for each other in the two prompts.
    """

    one: str
    other: str
    graph: AttributionGraph  # in which the other is
    annotations: Annotations = NO_ANNOTATIONS  # of that graph

    def __str__(self) -> str:
        return f"{self.one} > {self.other}"


Edit = Set | Scale | Add | Push | Swap


@dataclass(frozen=True)
class Change:
    """One feature or error at one position: its new activation is factor · own + offset."""

    node: NodeId
    factor: float
    offset: float = 0.0
    onward: bool = False  # at every new token too


@dataclass(frozen=True)
class Intervention:
    """Changes that are made together, each of another node."""

    what: str  # in words
    changes: tuple[Change, ...] = ()
    pushes: tuple[Push, ...] = field(default=())

    @property
    def last_layer(self) -> int:
        """The highest layer at which something is changed; -1 if nothing is."""
        layers = [change.node.layer for change in self.changes] + [p.layer for p in self.pushes]
        return max((layer for layer in layers if layer is not None), default=-1)


def intervention(
    graph: AttributionGraph, edits: Iterable[Edit], annotations: Annotations = NO_ANNOTATIONS
) -> Intervention:
    """Edits together, by the nodes that they change.

    Raises EditError for numbers that are not finite, for nodes that have no activation and for two
    edits of one node, SelectionError for names that select nothing.
    """
    given = tuple(edits)
    changes: dict[NodeId, tuple[Change, Edit]] = {}
    for edit in given:
        _require_finite(edit)
        if isinstance(edit, Push):
            _require_place(graph, edit)
            continue
        for change in _changes(graph, edit, annotations):
            if change.node in changes:
                raise EditError(
                    f"{change.node} is edited twice, by {str(changes[change.node][1])!r} and by "
                    f"{str(edit)!r}: give one edit of each node."
                )
            changes[change.node] = change, edit
    return Intervention(
        what="; ".join(map(str, given)) or "nothing",
        changes=tuple(change for change, _ in changes.values()),
        pushes=tuple(edit for edit in given if isinstance(edit, Push)),
    )


def _changes(
    graph: AttributionGraph, edit: Set | Scale | Add | Swap, annotations: Annotations
) -> Iterator[Change]:
    if isinstance(edit, Swap):
        yield from _swapped(graph, edit, annotations)
        return
    factor, offset = edit.rule
    for node, onward in _named(graph, edit.nodes, annotations):
        if node.kind not in (NodeKind.FEATURE, NodeKind.ERROR):
            raise EditError(
                f"{node} cannot be edited: interventions change features and errors, and the "
                "residual stream by a vector."
            )
        if node.kind == NodeKind.ERROR and offset != 0:
            raise EditError(f"{node} has no activation: scale it, or set it to 0.")
        yield Change(node, factor, offset, onward)


def _named(
    graph: AttributionGraph, name: str, annotations: Annotations
) -> Iterator[tuple[NodeId, bool]]:
    """The nodes of a name, and whether each holds for new tokens too."""
    onward = name.endswith("+")
    nodes = _nodes(graph, name.removesuffix("+"), annotations)
    if not onward:
        yield from ((node, False) for node in nodes)
        return
    last = len(graph.provenance.tokens) - 1
    first: dict[tuple[NodeKind, int | None, int | None], int] = {}
    for node in nodes:
        if node.pos is not None:
            key = node.kind, node.layer, node.index
            first[key] = min(node.pos, first.get(key, last))
    for (kind, layer, index), start in first.items():
        for pos in range(start, last + 1):
            yield NodeId(kind, layer, pos, index), pos == last and kind == NodeKind.FEATURE


def _nodes(graph: AttributionGraph, name: str, annotations: Annotations) -> list[NodeId]:
    node = _feature(name)
    if node is not None and node.pos is not None:
        context, length = graph.provenance.context_only, len(graph.provenance.tokens)
        if not context <= node.pos < length:
            raise EditError(
                f"{node} is at no position with features: choose one of {context} to {length - 1}."
            )
        if node.layer is not None and node.layer >= graph.provenance.model.n_layers:
            raise EditError(
                f"{node} is in no layer of the model, which has {graph.provenance.model.n_layers}, "
                "numbered from 0."
            )
        return [node]
    chosen = select(graph, name, annotations.rows(graph))
    return [graph.nodes[row] for row in np.flatnonzero(chosen).tolist()]


def _feature(name: str) -> NodeId | None:
    try:
        node = NodeId.parse(name)
    except ValueError:
        return None
    return node if node.kind == NodeKind.FEATURE else None


def _swapped(graph: AttributionGraph, swap: Swap, annotations: Annotations) -> Iterator[Change]:
    one, other = (
        _full(graph, swap.one, annotations),
        _full(swap.graph, swap.other, swap.annotations),
    )
    own = _activations(graph, _features(graph, one, annotations))
    moved = _moved(graph, swap.graph, _features(swap.graph, other, swap.annotations))
    if one.startswith("concept:") and other.startswith("concept:"):
        where = _places(own) & _places(moved)
        own, moved = (
            {node: value for node, value in every.items() if (node.layer, node.pos) in where}
            for every in (
                _activations(graph, _all_features(graph)),
                _moved(graph, swap.graph, _all_features(swap.graph)),
            )
        )
    if not moved:
        raise EditError(
            f"{swap.other!r} is at no position of the other prompt that stands for one of this "
            f"prompt, or at no layer at which {swap.one!r} is: take two prompts of one form."
        )
    for node in {**own, **moved}:
        value = moved.get(node, 0.0)
        if value != own.get(node, 0.0):
            yield Change(node, 0.0, value)


def _full(graph: AttributionGraph, name: str, annotations: Annotations) -> str:
    """A bare name as that of a kind, of a group, or else of a concept."""
    if ":" in name or name in KINDS:
        return name
    return f"group:{name}" if name in annotations.rows(graph) else f"concept:{name}"


def _features(graph: AttributionGraph, name: str, annotations: Annotations) -> list[int]:
    chosen = select(graph, name, annotations.rows(graph))
    rows = np.flatnonzero(chosen & graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    if not rows:
        raise SelectionError(f"{name!r} selects no feature: a swap is of features.")
    return rows


def _all_features(graph: AttributionGraph) -> list[int]:
    return np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)).tolist()


def _activations(graph: AttributionGraph, rows: list[int]) -> dict[NodeId, float]:
    return {graph.nodes[row]: float(graph.nodes.activation[row]) for row in rows}


def _moved(
    graph: AttributionGraph, other: AttributionGraph, rows: list[int]
) -> dict[NodeId, float]:
    """Features of another prompt, at the positions of this one that stand for theirs."""
    place = align_prompts(other.provenance, graph.provenance)
    found: dict[NodeId, float] = {}
    for node, value in _activations(other, rows).items():
        pos = -1 if node.pos is None else int(place[node.pos])
        if pos >= graph.provenance.context_only:
            found[replace(node, pos=pos)] = value
    return found


def _places(features: Iterable[NodeId]) -> set[tuple[int | None, int | None]]:
    return {(node.layer, node.pos) for node in features}


def _require_finite(edit: Edit) -> None:
    numbers = [value for value in vars(edit).values() if isinstance(value, int | float)]
    finite = all(map(isfinite, numbers))
    if isinstance(edit, Push):
        finite = finite and bool(np.all(np.isfinite(edit.vector)))
    if not finite:
        raise EditError(f"{str(edit)!r} holds a number that is not finite: give another.")


def _require_place(graph: AttributionGraph, push: Push) -> None:
    n_layers, length = graph.provenance.model.n_layers, len(graph.provenance.tokens)
    if not (0 <= push.layer < n_layers and 0 <= push.pos < length):
        raise EditError(
            f"{str(push)!r} is out of place: layers are 0 to {n_layers - 1}, positions 0 to "
            f"{length - 1}."
        )
