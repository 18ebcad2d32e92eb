"""Stability of one graph over pruning thresholds, paraphrases and other dictionaries.

The graph is pruned; that is the reference.  Of every node and edge of it is counted in how many
variants of each kind it stays (`graphs.comparison.variations`), and from the least share over the
kinds follow its class and the null (`graphs.core.stability`).

Influence is that of the given graph.  A class's share is of the influence at all features, errors
and biases of the reference, or along all its edges; the shares of the three classes sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.analysis.influence import edge_influence, influence_shares
from graphs.analysis.prune import DEFAULTS, PruneSettings, always_kept
from graphs.comparison.correspond import CorrespondSettings
from graphs.comparison.variations import (
    Reference,
    StabilityError,
    Stays,
    at_thresholds,
    in_paraphrases,
    with_dictionaries,
)
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.stability import (
    CORE_LIMIT,
    NOISE_LIMIT,
    Stability,
    StabilityNull,
    Variation,
)


@dataclass(frozen=True)
class StabilitySettings:
    """What is varied, and the limits of the classes.  Raises ValueError for values out of range."""

    prune: PruneSettings = DEFAULTS  # the reference; a graph that is pruned already is it as it is
    # Up to the thresholds of the reference, since looser ones keep all of it, and down to where
    # nodes hold three quarters of that influence; each pair of both is a variant.
    node_thresholds: tuple[float, ...] = (0.6, 0.7, 0.8)
    edge_thresholds: tuple[float, ...] = (0.85, 0.9, 0.95, 0.98)
    core_limit: float = CORE_LIMIT  # least share of variants of a core node or edge
    noise_limit: float = NOISE_LIMIT  # share below which it is noise
    correspond: CorrespondSettings = field(default_factory=CorrespondSettings)  # of dictionaries

    def __post_init__(self) -> None:
        for name in ("node_thresholds", "edge_thresholds"):
            if not all(0.0 <= one <= 1.0 for one in getattr(self, name)):
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}.")
        if not 0.0 <= self.noise_limit <= self.core_limit <= 1.0:
            raise ValueError(
                "The limit of noise must be from 0 to that of core, and that of core at most 1, "
                f"got {self.noise_limit} and {self.core_limit}."
            )


def stability(
    graph: AttributionGraph,
    paraphrases: Sequence[AttributionGraph] = (),
    against: Sequence[AttributionGraph] = (),
    settings: StabilitySettings | None = None,
) -> Stability:
    """What stays of a graph over thresholds, paraphrases, and against other dictionaries.

    `paraphrases` are graphs of other prompts with the same dictionary, `against` graphs of the same
    prompt with other dictionaries.

    Raises StabilityError for graphs that are neither, and if nothing is varied.
    """
    chosen = settings or StabilitySettings()
    reference = Reference.of(graph, chosen.prune)
    found = [
        at_thresholds(reference, chosen.node_thresholds, chosen.edge_thresholds),
        in_paraphrases(reference, paraphrases),
        with_dictionaries(reference, against, chosen.correspond),
    ]
    kinds = [one for one in found if one is not None]
    if not kinds:
        own = reference.pruning
        raise StabilityError(
            f"Nothing is varied: no threshold is below those of the graph, nodes "
            f"{own.node_threshold:g} and edges {own.edge_threshold:g}; give a paraphrase, or a "
            "graph with another dictionary."
        )
    return _recorded(reference, kinds, chosen)


def _recorded(reference: Reference, kinds: list[Stays], chosen: StabilitySettings) -> Stability:
    """The counts of the reference's nodes and edges, by name."""
    graph = reference.graph
    arrived = influence_shares(graph)
    rows, edges = np.flatnonzero(reference.nodes), np.flatnonzero(reference.edges)
    place = np.cumsum(reference.nodes) - 1
    target, source = edge_targets(graph.weights)[edges], graph.weights.indices[edges]
    may_go = ~graph.nodes.is_kind(*always_kept(reference.pruning.keep_errors))
    judged = [one.judges & may_go for one in kinds]
    nulls = [
        _null(reference, arrived, [one], [own], chosen)
        for one, own in zip(kinds, judged, strict=True)
    ]
    return Stability(
        generator=f"headwater {version('headwater')}",
        node_threshold=reference.pruning.node_threshold,
        edge_threshold=reference.pruning.edge_threshold,
        core_limit=chosen.core_limit,
        noise_limit=chosen.noise_limit,
        nodes=tuple(str(graph.nodes[row]) for row in rows.tolist()),
        node_influence=tuple(arrived[rows].tolist()),
        sources=tuple(place[source].tolist()),
        targets=tuple(place[target].tolist()),
        edge_influence=tuple(edge_influence(graph, arrived).data[edges].tolist()),
        variations=tuple(
            Variation(
                kind=one.kind,
                variants=one.variants,
                nodes=_known(one.nodes[rows], own[rows]),
                edges=_known(one.edges[edges], (one.judges[target] & one.judges[source])),
                unaligned=_unaligned(one.aligned[rows], arrived[rows]),
                null=null,
            )
            for one, own, null in zip(kinds, judged, nulls, strict=True)
        ),
        null=_null(reference, arrived, kinds, judged, chosen),
    )


def _known(counts: Int[ndarray, " item"], judged: Bool[ndarray, " item"]) -> tuple[int | None, ...]:
    pairs = zip(counts.tolist(), judged.tolist(), strict=True)
    return tuple(count if known else None for count, known in pairs)


def _unaligned(aligned: Float[ndarray, " item"], arrived: Float[ndarray, " item"]) -> float:
    share = float((1 - aligned) @ arrived) / (float(arrived.sum()) or 1.0)
    return min(max(share, 0.0), 1.0)


def _null(
    reference: Reference,
    arrived: Float[ndarray, " node"],
    kinds: list[Stays],
    judged: list[Bool[ndarray, " node"]],
    chosen: StabilitySettings,
) -> StabilityNull:
    """Share of influence at core nodes if each had the class of a random node of its cell.

    A cell is a layer and position of the whole graph.  With p the share of core nodes in a node's
    cell and w its share of influence, the mean is Σ w p and the variance Σ w² p (1 - p).
    """
    least, known = np.full(len(arrived), np.inf), np.zeros(len(arrived), dtype=bool)
    for one, own in zip(kinds, judged, strict=True):
        least = np.where(own, np.minimum(least, one.nodes / len(one.variants)), least)
        known |= own
    nodes = reference.graph.nodes
    cells = np.unique(np.stack([nodes.layer, nodes.pos])[:, known], axis=1, return_inverse=True)[1]
    core = np.bincount(cells, least[known] >= chosen.core_limit) / np.maximum(np.bincount(cells), 1)
    p, inside = core[cells], reference.nodes[known]
    weight = np.where(inside, arrived[known], 0.0)
    weight /= float(weight.sum()) or 1.0
    return StabilityNull(mean=float(weight @ p), sd=float(np.sqrt(weight**2 @ (p * (1 - p)))))
