"""Changes: which nodes edits change (`graphs.interventions.edits`), and how.

Whatever the edits are called, each node's new activation is factor · own + offset, and no node is
edited twice: so their order is of no matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from graphs.analysis.select import KINDS, SelectionError, select
from graphs.comparison.positions import align_prompts
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.interventions.edits import Add, Edit, EditError, Push, Scale, Set, Swap


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
    pushes: tuple[Push, ...] = ()

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
    onward, last = swap.one.endswith("+"), len(graph.provenance.tokens) - 1
    one = _full(graph, swap.one.removesuffix("+"), annotations)
    other = _full(swap.graph, swap.other, swap.annotations)
    place = align_prompts(swap.graph.provenance, graph.provenance)

    def both(one: str, other: str) -> tuple[dict[NodeId, float], dict[NodeId, float]]:
        """Activations here, and of the other prompt at the positions that stand for its own."""
        there = _activations(swap.graph, other, swap.annotations).items()
        at = [
            (node, -1 if node.pos is None else int(place[node.pos]), value) for node, value in there
        ]
        moved = {
            replace(node, pos=pos): value
            for node, pos, value in at
            if pos >= graph.provenance.context_only
        }
        return _activations(graph, one, annotations), moved

    own, moved = both(one, other)
    if one.startswith("concept:") and other.startswith("concept:"):
        where = _places(own) & _places(moved)
        own, moved = (
            {node: value for node, value in every.items() if (node.layer, node.pos) in where}
            for every in both("feature", "feature")
        )
    if not moved:
        raise EditError(
            f"{swap.other!r} is at no position of the other prompt that stands for one of this "
            f"prompt, or at no layer at which {swap.one!r} is: take two prompts of one form."
        )
    for node in {**own, **moved}:
        value = moved.get(node, 0.0)
        if value != own.get(node, 0.0):
            yield Change(node, 0.0, value, onward and node.pos == last)


def _full(graph: AttributionGraph, name: str, annotations: Annotations) -> str:
    """A bare name as that of a kind, of a group, or else of a concept."""
    if ":" in name or name in KINDS:
        return name
    return f"group:{name}" if name in annotations.rows(graph) else f"concept:{name}"


def _activations(
    graph: AttributionGraph, name: str, annotations: Annotations
) -> dict[NodeId, float]:
    """The features of a name."""
    chosen = select(graph, name, annotations.rows(graph))
    rows = np.flatnonzero(chosen & graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    if not rows:
        raise SelectionError(f"{name!r} selects no feature: a swap is of features.")
    return {graph.nodes[row]: float(graph.nodes.activation[row]) for row in rows}


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
