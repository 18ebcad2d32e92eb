"""Attention taken apart, as it is shown: heads of edges, and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from rich.console import RenderableType

import circuits
import graphs
import viz
from circuits.progress import Progress, ignore_progress
from graphs.attention.edge_heads import EdgeHeads
from graphs.attention.entries import AttentionEntries
from graphs.attention.head_paths import HeadPaths
from graphs.attention.places import edges_named, head_named, position_named
from graphs.attention.scores import AttentionScore, ScorePairs
from headwater.choosing import AttentionKept
from headwater.graph import Graph
from headwater.printed import Printed, printed
from viz.text.attended import NAMED, strongest_components
from viz.text.words import visible

EDGES, ENTRIES, PATHS, COMPONENTS, PAIRS = 20, 10, 10, 8, 10  # that are shown
MOST_LABELLED = 50  # components of each side
MOST_EDGES = 1_000_000  # that are taken apart by head
LEAST = 0.005  # of an edge, from which a head is asked why it looks


@dataclass(frozen=True, repr=False)
class Entries(Printed, AttentionEntries):
    """The entries of patterns that carry most into a target, most first."""

    graph: Graph

    def __repr__(self) -> str:
        return f"<{len(self.flow)} entries of patterns into {self.graph.nodes[self.target]}>"

    def __str__(self) -> str:
        return printed(viz.entries_text(self.graph, self))


@dataclass(frozen=True, repr=False)
class Heads(Printed, EdgeHeads):
    """Edges by head, strongest first; `print` shows what `headwater attention heads` does."""

    graph: Graph  # which keeps heads and looks, if looks were asked for
    entries: Entries  # into the most heavily weighted target
    paths: HeadPaths | None  # of the strongest edge, if edges were named

    def __repr__(self) -> str:
        return f"<Heads of {len(self.weight):,} edges of {self.graph.provenance.prompt!r}>"

    def __str__(self) -> str:
        return printed(self.shown(EDGES))

    def shown(self, count: int) -> RenderableType:
        """What is printed, with so many edges."""
        if self.paths is not None:
            ends = int(self.source[0]), int(self.target[0])
            return viz.paths_of_heads_text(self.graph, *ends, self.paths)
        return viz.heads_text(self.graph, self, self.entries, count)


@dataclass(frozen=True, repr=False)
class Scores(Printed, AttentionScore):
    """A score by component; `print` shows what `headwater attention score` does."""

    graph: Graph
    pairs: ScorePairs
    labels: dict[int, str]  # of components, by row of `nodes`

    def __repr__(self) -> str:
        return (
            f"<Scores of head {self.layer}.{self.head}, query @{self.query}, key @{self.key}: "
            f"attention {self.attention[self.key]:.2f}, score {self.score.value:+.3f}>"
        )

    def __str__(self) -> str:
        return printed(self.shown(COMPONENTS))

    def shown(self, count: int) -> RenderableType:
        """What is printed, with so many components of each side."""
        return viz.score_text(self.graph, self, self.pairs, self.labels, count)


@dataclass(frozen=True)
class Reason:
    """A head that carries part of an edge, and why it looks from its target at its source."""

    part: float
    score: AttentionScore


@dataclass(frozen=True, repr=False)
class Reasons(Printed):
    """Why an edge is there; `print` shows what `headwater attention why` does."""

    graph: Graph
    source: int  # rows of the graph
    target: int
    paths: HeadPaths
    reasons: tuple[Reason, ...]  # of the heads that carry most by themselves
    labels: dict[int, str]  # of components, by column of the sources

    def __repr__(self) -> str:
        ends = self.graph.nodes[self.source], self.graph.nodes[self.target]
        return f"<Reasons of {ends[0]} → {ends[1]}: {len(self.reasons)} heads>"

    def __str__(self) -> str:
        return printed(self.shown())

    def shown(self) -> RenderableType:
        """What is printed."""
        return viz.reasons_text(
            self.graph,
            (self.source, self.target),
            self.paths,
            [(one.part, one.score) for one in self.reasons],
            self.labels,
        )


def with_attention(
    graph: graphs.AttributionGraph,
    subject: circuits.Subject,
    source: circuits.FeatureSource,
    kept: AttentionKept,
    progress: Progress = ignore_progress,
) -> graphs.AttributionGraph:
    """A graph that was just traced, with as much of attention as is to be kept."""
    if kept in (AttentionKept.NONE, AttentionKept.TOTALS):
        return graph
    progress("attend", 0, 1)
    experiment = circuits.prepare(graph, subject, source)
    if kept == AttentionKept.EDGES:
        return circuits.attend(experiment)
    scores = kept == AttentionKept.SCORES
    return circuits.with_head_nodes(experiment, scores=scores, progress=progress)


class Asked(NamedTuple):
    """A score that is asked for."""

    layer: int
    head: int
    query: int  # position
    key: int
    rivals: tuple[int, ...]  # none: all keys behind the prefix


def asked(graph: Graph, head: str, query: str, key: str, rivals: Sequence[str] = ()) -> Asked:
    """A score by names of its head and tokens.

    Raises SelectionError for names of none, and for keys that the query does not see.
    """
    layer, number = head_named(head, graph.provenance.model.n_layers)
    at, seen = position_named(graph, query, "query"), position_named(graph, key, "key")
    others = tuple(position_named(graph, one, "key") for one in rivals)
    for one in (seen, *others):
        if one > at:
            raise graphs.SelectionError(
                f"The key @{one} is behind the query @{at}, which sees what precedes it and itself."
            )
    if seen in others:
        raise graphs.SelectionError(f"The key @{seen} does not compete with itself.")
    return Asked(layer, number, at, seen, others)


def edges_asked(graph: Graph, edge: str | None) -> Int[ndarray, " edge"] | None:
    """The edges of a name; None: all.  Raises SelectionError as `edges_named`, and for too many."""
    if graph.weights.nnz > MOST_EDGES:
        raise graphs.SelectionError(
            f"The graph has {graph.weights.nnz:,} edges: prune it first, with `headwater prune` or "
            "graph.prune()."
        )
    return None if edge is None else edges_named(graph, edge, graph.annotations)


def heads_in(
    experiment: circuits.Experiment,
    graph: Graph,
    edges: Int[ndarray, " edge"] | None = None,
    looks: int = 0,
) -> Heads:
    """The heads of a graph's edges, or of some of its stored weights, in their order.

    With looks, so many are found, and kept with the heads of all edges in the graph of the result.
    """
    found, paths = circuits.heads(experiment), None
    if looks:
        graph = Graph.of(circuits.attend(experiment, looks, found), graph.annotations)
    order = np.argsort(-np.abs(found.weight), kind="stable") if edges is None else edges
    found = found.take(order)
    if edges is not None:
        ends = int(found.source[0]), int(found.target[0])
        paths = circuits.head_paths(experiment, *ends, PATHS)
    entries = circuits.attention_entries(experiment, graph.heaviest_target(), ENTRIES)
    entries = Entries(**vars(entries), graph=graph)
    return Heads(**vars(found), graph=graph, entries=entries, paths=paths)


def scores_in(experiment: circuits.Experiment, graph: Graph, score: Asked) -> Scores:
    """A score by component, with labels of the strongest.  Raises SelectionError for no head."""
    layer, head, query, key, rivals = score
    n_heads = experiment.local.frozen.blocks[layer].n_heads
    if head >= n_heads:
        raise graphs.SelectionError(
            f"There is no head {head}: layer {layer} has {n_heads} heads, numbered from 0."
        )
    found = circuits.attention_score(experiment, layer, head, query, key, rivals or None)
    pairs = circuits.score_pairs(experiment, layer, head, query, key, PAIRS)
    rows = {*pairs.query.tolist(), *pairs.key.tolist()} - {-1}
    rows |= _strongest(found, MOST_LABELLED)
    labels = _labels(experiment, graph, rows)
    return Scores(**vars(found), graph=graph, pairs=pairs, labels=labels)


def reasons_in(
    experiment: circuits.Experiment, graph: Graph, source: int, target: int, most: int
) -> Reasons:
    """Why the heads that carry most of an edge, each by itself, look from its target at its source.

    A source without a position has none, nor has an edge that goes past all attention.
    """
    paths = circuits.head_paths(experiment, source, target, max(PATHS, 4 * most))
    key, query = int(graph.nodes.pos[source]), int(graph.nodes.pos[target])
    carried = [path for path in paths.paths if abs(path.weight) >= LEAST * abs(paths.weight)]
    alone = [path for path in carried if len(path.heads) == 1][:most] if key >= 0 else []
    reasons = tuple(
        Reason(path.weight, circuits.attention_score(experiment, *path.heads[0], query, key))
        for path in alone
    )
    rows = {at for one in reasons for at in _strongest(one.score, NAMED)}
    return Reasons(graph, source, target, paths, reasons, _labels(experiment, graph, rows))


def _strongest(score: AttentionScore, count: int) -> set[int]:
    """The components that matter most on either side."""
    sides = ("at_query", "at_keys")
    return {at for side in sides for at in strongest_components(score, side, count)}


def _labels(experiment: circuits.Experiment, graph: Graph, rows: set[int]) -> dict[int, str]:
    """Labels of the features among these components."""
    found = circuits.component_labels(experiment, sorted(rows), graph.annotations)
    return {at: visible(label) for at, label in found.items()}
