"""Variations: in how many variants of a graph each of its nodes and edges stays.

A variant is the same graph pruned at stricter thresholds, or another graph that is pruned as the
reference is.  A node of the reference stays if the variant keeps its partner, an edge if the
variant keeps an edge between the partners of its ends.  Partners are

    thresholds     the node itself
    paraphrases    the node with the same name at the aligned position (`graphs.consensus`)
    dictionaries   the feature that is matched by evidence (`graphs.correspond`), one to one; by
                   name if both graphs have one dictionary

A node at a position that a paraphrase lacks does not stay in it.  Errors and biases of two
dictionaries do not correspond, so dictionaries do not judge them or their edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.analysis.prune import PruneSettings, kept_by, prune
from graphs.comparison.consensus import AlignedPrompt
from graphs.comparison.correspond import COMPARED, CorrespondSettings, correspond
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.identity import same_dictionary, same_source, token_keys
from graphs.core.provenance import UNKNOWN
from graphs.core.stability import VariationKind
from graphs.errors import HeadwaterError


class StabilityError(HeadwaterError):
    """A graph that is no variant of another one."""


@dataclass(frozen=True)
class Stays:
    """Variants of one kind, and in how many of them each node and edge of the graph stays."""

    kind: VariationKind
    variants: tuple[str, ...]
    nodes: Int[ndarray, " node"]
    edges: Int[ndarray, " edge"]
    judges: Bool[ndarray, " node"]  # edges are judged if both ends are
    aligned: Float[ndarray, " node"]  # share of variants that have the node's position


@dataclass(frozen=True)
class Reference:
    """A graph, and what pruning keeps of it."""

    graph: AttributionGraph
    pruning: PruneSettings
    nodes: Bool[ndarray, " node"]
    edges: Bool[ndarray, " edge"]

    @classmethod
    def of(cls, graph: AttributionGraph, settings: PruneSettings) -> Reference:
        """A graph that is pruned already is the reference as it is."""
        pruning = pruned_with(graph) or settings
        return cls(graph, pruning, *_kept(graph, pruning))

    def edge_numbers(self) -> Int[ndarray, " edge"]:
        """Both ends of each stored weight as one number."""
        return edge_targets(self.graph.weights) * len(self.graph) + self.graph.weights.indices


def at_thresholds(
    reference: Reference, node_thresholds: Sequence[float], edge_thresholds: Sequence[float]
) -> Stays | None:
    """Pruned at each pair of thresholds but those that cannot remove anything; None without any."""
    graph, own = reference.graph, reference.pruning
    pairs = [
        (node, edge)
        for node in node_thresholds
        for edge in edge_thresholds
        if node < own.node_threshold or edge < own.edge_threshold
    ]
    kept = [
        kept_by(graph, replace(own, node_threshold=node, edge_threshold=edge))
        for node, edge in pairs
    ]
    every = np.ones(len(graph))
    names = tuple(f"nodes {node:g}, edges {edge:g}" for node, edge in pairs)
    return _counted(reference, "thresholds", names, kept, every > 0, every) if pairs else None


def in_paraphrases(reference: Reference, graphs: Sequence[AttributionGraph]) -> Stays | None:
    """In graphs of other prompts; None without any.

    Raises StabilityError for a graph of another dictionary.
    """
    for graph in graphs:
        if not same_dictionary(reference.graph, graph):
            raise StabilityError(
                f"A paraphrase is traced with the dictionary of the graph: {_of(reference.graph)}, "
                f"but {graph.provenance.prompt!r} was traced with {_of(graph)}."
            )
    kept: list[tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]] = []
    aligned = np.zeros(len(reference.graph))
    place = _places(reference)
    for graph in graphs:
        other = AlignedPrompt(graph, reference.graph)
        row = np.array([-1 if key is None else place.get(key, -1) for key in other.keys], dtype=int)
        kept.append(_carried(reference, graph, row, *_kept(graph, reference.pruning)))
        aligned += _has_position(reference.graph, other) / len(graphs)
    names = tuple(graph.provenance.prompt for graph in graphs)
    every = np.ones(len(reference.graph), dtype=bool)
    return _counted(reference, "paraphrases", names, kept, every, aligned) if graphs else None


def with_dictionaries(
    reference: Reference, graphs: Sequence[AttributionGraph], settings: CorrespondSettings
) -> Stays | None:
    """In graphs of the same prompt with other dictionaries; None without any.

    Raises StabilityError for a graph of another model or prompt.
    """
    own, judges = reference.graph, np.ones(len(reference.graph), dtype=bool)
    kept: list[tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]] = []
    for graph in graphs:
        _require_same_prompt(own, graph)
        nodes, edges = _kept(graph, reference.pruning)
        if same_dictionary(own, graph):
            place, other = _places(reference), AlignedPrompt(graph, own)
            row = np.array([-1 if key is None else place.get(key, -1) for key in other.keys])
        else:
            row = _matched(reference, graph, nodes, settings)
            judges &= own.nodes.is_kind(*COMPARED)
        kept.append(_carried(reference, graph, row, nodes, edges))
    names = tuple(graph.provenance.dictionary.name for graph in graphs)
    every = np.ones(len(own))
    return _counted(reference, "dictionaries", names, kept, judges, every) if graphs else None


def pruned_with(graph: AttributionGraph) -> PruneSettings | None:
    """The settings with which a graph was pruned; None if it was not, as far as its header says."""
    match graph.provenance.settings.get("prune"):
        case {
            "node_threshold": float() | int() as nodes,
            "edge_threshold": float() | int() as edges,
            "keep_errors": bool(errors),
        } if 0 <= nodes <= 1 and 0 <= edges <= 1:
            return PruneSettings(float(nodes), float(edges), errors)
        case _:
            return None


def _kept(
    graph: AttributionGraph, settings: PruneSettings
) -> tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]:
    if pruned_with(graph) is None:
        return kept_by(graph, settings)
    return np.ones(len(graph), dtype=bool), np.ones(graph.weights.nnz, dtype=bool)


def _places(reference: Reference) -> dict[tuple[int, ...], int]:
    """Row of each key of the reference."""
    keys = AlignedPrompt(reference.graph, reference.graph).keys
    return {key: row for row, key in enumerate(keys) if key is not None}


def _has_position(graph: AttributionGraph, other: AlignedPrompt) -> Float[ndarray, " node"]:
    """1 for nodes at positions with an aligned position in the other prompt, and without any."""
    pos = graph.nodes.pos
    has = np.isin(np.arange(len(graph.provenance.tokens)), other.positions)
    return np.where(pos >= 0, has[np.maximum(pos, 0)], True).astype(np.float64)


def _matched(
    reference: Reference,
    graph: AttributionGraph,
    nodes: Bool[ndarray, " other"],
    settings: CorrespondSettings,
) -> Int[ndarray, " other"]:
    """Row in the reference of each node of a graph, where both are kept; else -1."""
    own = reference.graph
    if pruned_with(own) is None:
        own = prune(own, reference.pruning)
    other = graph if pruned_with(graph) is not None else prune(graph, reference.pruning)
    match = correspond(own, other, replace(settings, permutations=0, plans=0)).comparison.match
    row = np.full(len(graph), -1)
    row[np.flatnonzero(nodes)[match.second]] = np.flatnonzero(reference.nodes)[match.first]
    return row


def _carried(
    reference: Reference,
    graph: AttributionGraph,
    row: Int[ndarray, " other"],
    nodes: Bool[ndarray, " other"],
    edges: Bool[ndarray, " other_edge"],
) -> tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]:
    """What a variant keeps, as nodes and edges of the reference's graph; `row` as in `_matched`."""
    own = reference.graph
    stays = np.zeros(len(own), dtype=bool)
    stays[row[nodes & (row >= 0)]] = True
    target, source = row[edge_targets(graph.weights)[edges]], row[graph.weights.indices[edges]]
    both = (target >= 0) & (source >= 0)
    there = target[both] * len(own) + source[both]
    return stays, np.isin(reference.edge_numbers(), there)


def _counted(
    reference: Reference,
    kind: VariationKind,
    names: tuple[str, ...],
    kept: list[tuple[Bool[ndarray, " node"], Bool[ndarray, " edge"]]],
    judges: Bool[ndarray, " node"],
    aligned: Float[ndarray, " node"],
) -> Stays:
    nodes, edges = np.zeros(len(reference.nodes), int), np.zeros(len(reference.edges), int)
    for some, others in kept:
        nodes += some
        edges += others
    return Stays(kind, names, nodes, edges, judges, aligned)


def _require_same_prompt(own: AttributionGraph, other: AttributionGraph) -> None:
    models = own.provenance.model, other.provenance.model
    if UNKNOWN not in (models[0].name, models[1].name) and not same_source(*models):
        raise StabilityError(
            f"Another dictionary is one of the same model, {models[0].name!r}, but a graph is of "
            f"{models[1].name!r}: compare graphs of two models with `headwater compare`."
        )
    if len(set(token_keys(own.provenance, other.provenance))) > 1:
        raise StabilityError(
            f"Graphs with other dictionaries are of the same prompt, {own.provenance.prompt!r}, "
            f"but one is of {other.provenance.prompt!r}: give it as a paraphrase."
        )


def _of(graph: AttributionGraph) -> str:
    return f"{graph.provenance.dictionary.name!r} in {graph.provenance.model.name!r}"
