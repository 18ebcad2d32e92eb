"""Changes: edits (`graphs.interventions.edits`) resolved to nodes of a graph.

Every edit sets a node's new activation to factor · own + offset, and no node is edited twice, so
the order of edits does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from graphs.analysis.select import KINDS, SelectionError, select
from graphs.comparison.positions import align_prompts
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeId, NodeKind
from graphs.formats.neuronpedia.names import own_spelling
from graphs.interventions.edits import Add, Edit, EditError, Scale, SetTo, Steer, Swap
from graphs.interventions.heads import PREFIX, HeadChange, HeadPatch, head_place, patch_of


@dataclass(frozen=True, repr=False)
class Change(Brief):
    """One feature or error at one position: its new activation is factor · own + offset."""

    node: NodeId
    factor: float
    offset: float = 0.0
    onward: bool = False  # also at every new token


@dataclass(frozen=True, repr=False)
class Intervention(Brief):
    """Changes that are made together, each of a different node."""

    what: str  # description
    changes: tuple[Change, ...] = ()
    steering: tuple[Steer, ...] = ()
    heads: tuple[HeadChange | HeadPatch, ...] = ()

    @property
    def last_layer(self) -> int:
        """The highest block that holds none of what the changes do; -1 if there is none.

        It is the highest that is changed, or the one below a changed head, which the MLP reads.
        """
        layers = [change.node.layer for change in self.changes] + [p.layer for p in self.steering]
        layers += [one.place.layer - 1 for one in self.heads]
        return max((layer for layer in layers if layer is not None), default=-1)


def intervention(
    graph: AttributionGraph, edits: Iterable[Edit], annotations: Annotations = NO_ANNOTATIONS
) -> Intervention:
    """The intervention that makes these edits together.

    Raises EditError for numbers that are not finite, for nodes that have no activation and for two
    edits of one node, SelectionError for names that select nothing.
    """
    given = tuple(edits)
    changes: dict[NodeId, tuple[Change, Edit]] = {}
    heads: list[tuple[HeadChange | HeadPatch, Edit]] = []
    for edit in given:
        _require_finite(edit)
        if isinstance(edit, Steer):
            _require_place(graph, edit)
            continue
        head = _head(graph, edit)
        if head is not None:
            _require_new(head, edit, heads)
            heads.append((head, edit))
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
        steering=tuple(edit for edit in given if isinstance(edit, Steer)),
        heads=tuple(head for head, _ in heads),
    )


def _head(
    graph: AttributionGraph, edit: SetTo | Scale | Add | Swap
) -> HeadChange | HeadPatch | None:
    """What an edit does to a head; None if it names none."""
    if isinstance(edit, Swap):
        named = edit.one.startswith(PREFIX) or edit.other.startswith(PREFIX)
        return patch_of(graph, edit) if named else None
    if not edit.nodes.startswith(PREFIX):
        return None
    place = head_place(graph, edit.nodes)
    if not isinstance(edit, Scale):
        raise EditError(f"{place} has no activation: scale it, or swap it with another prompt's.")
    return HeadChange(place, edit.factor)


def _require_new(
    head: HeadChange | HeadPatch, edit: Edit, before: list[tuple[HeadChange | HeadPatch, Edit]]
) -> None:
    for other, by in before:
        if head.place.overlaps(other.place):
            raise EditError(
                f"{head.place} is edited twice, by {str(by)!r} and by {str(edit)!r}: give one "
                "edit of each output and entry."
            )


def _changes(
    graph: AttributionGraph, edit: SetTo | Scale | Add | Swap, annotations: Annotations
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
    """The nodes that a name selects, and whether each is also changed at new tokens."""
    onward = name.endswith("+")
    nodes = _nodes(graph, own_spelling(name.removesuffix("+"), graph), annotations)
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
        prefix, length = graph.provenance.n_prefix, len(graph.provenance.tokens)
        if not prefix <= node.pos < length:
            raise EditError(
                f"{node} is at a position without features: choose one of {prefix} to {length - 1}."
            )
        if node.layer is not None and node.layer >= graph.provenance.model.n_layers:
            raise EditError(
                f"{node} is in a layer that the model does not have: its layers are 0 to "
                f"{graph.provenance.model.n_layers - 1}."
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
        """Activations in this prompt, and those of the other prompt at the aligned positions."""
        theirs = _activations(swap.graph, other, swap.annotations).items()
        aligned = [
            (node, -1 if node.pos is None else int(place[node.pos]), value)
            for node, value in theirs
        ]
        moved = {
            replace(node, pos=pos): value
            for node, pos, value in aligned
            if pos >= graph.provenance.n_prefix
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
            f"{swap.other!r} is at no position of the other prompt that is aligned with this "
            f"prompt, or at no layer of {swap.one!r}: use two prompts of the same form."
        )
    for node in {**own, **moved}:
        value = moved.get(node, 0.0)
        if value != own.get(node, 0.0):
            yield Change(node, 0.0, value, onward and node.pos == last)


def _full(graph: AttributionGraph, name: str, annotations: Annotations) -> str:
    """A bare name with its prefix: a kind, a group, or else a concept."""
    if ":" in name or name in KINDS:
        return name
    return f"group:{name}" if name in annotations.rows(graph) else f"concept:{name}"


def _activations(
    graph: AttributionGraph, name: str, annotations: Annotations
) -> dict[NodeId, float]:
    """Activations of the features that a name selects."""
    chosen = select(graph, name, annotations.rows(graph))
    rows = np.flatnonzero(chosen & graph.nodes.is_kind(NodeKind.FEATURE)).tolist()
    if not rows:
        raise SelectionError(f"{name!r} selects no feature, and only features can be swapped.")
    return {graph.nodes[row]: float(graph.nodes.activation[row]) for row in rows}


def _places(features: Iterable[NodeId]) -> set[tuple[int | None, int | None]]:
    return {(node.layer, node.pos) for node in features}


def _require_finite(edit: Edit) -> None:
    numbers = [value for value in vars(edit).values() if isinstance(value, int | float)]
    finite = all(map(isfinite, numbers))
    if isinstance(edit, Steer):
        finite = finite and bool(np.all(np.isfinite(edit.vector)))
    if not finite:
        raise EditError(f"{str(edit)!r} contains a number that is not finite: give a finite one.")


def _require_place(graph: AttributionGraph, steer: Steer) -> None:
    n_layers, length = graph.provenance.model.n_layers, len(graph.provenance.tokens)
    if not (0 <= steer.layer < n_layers and 0 <= steer.pos < length):
        raise EditError(
            f"{str(steer)!r} is out of range: layers are 0 to {n_layers - 1}, positions 0 to "
            f"{length - 1}."
        )
