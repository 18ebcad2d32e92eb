"""Skipped hops: two-step paths of one graph that are single edges in another of the same prompt.

A cross-layer dictionary may write A → B → C as A → C, since A can write at once what B would write
on reading A.  With ' for the other graph, influence as shares of all influence on the targets,

    step(A, B, C)    = influence(C) · share[C, B] · share[B, A]
    direct(A, C)     = influence(C) · share[C, A]
    lost(A, B, C)    = max(0, step(A, B, C) − Σ_B' step'(A', B', C'))
    gained(A, C)     = max(0, direct'(A', C') − direct(A, C))
    skipped(A, B, C) = lost(A, B, C) · min(1, gained(A, C) / Σ_B lost(A, B, C))

So influence is skipped if the other graph takes less of it through B and more of it directly; the
total is at most what is lost and at most what is gained, and 0 between equal graphs.  A and C are
paired one to one: tokens and targets exactly, features as in a comparison of two dictionaries
(`graphs.comparison.evidence`), but at the same position only.  B' are all features at B's position
that are similar enough to B, paired or not, since the other dictionary may split B.  Features of
one dictionary are paired by identity.  Paths with an end that has no partner are not judged, and
of three steps that become one only those with both ends left are found.

The null exchanges B' at random for features at the same position: what would seem skipped if it
were not known what the features between do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import edge_influence, graph_shares, influence_shares
from graphs.comparison.compare import ComparisonError, Score
from graphs.comparison.correspond import COMPARED, CorrespondSettings
from graphs.comparison.evidence import Profiles, evidence, similarity
from graphs.comparison.matching import Match, match_by_identity, match_by_similarity
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_dictionary, same_source, token_keys
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind

MOST_FEATURES = 200  # strongest of each graph; time grows with the third power
LISTED = 100  # hops of each graph that are kept, the most skipped


@dataclass(frozen=True)
class Hop:
    """A two-step path of one graph, and what the other graph does instead.

    Influence is a share of all on the targets.
    """

    nodes: tuple[int, int, int]  # A, B and C: rows of the graph that takes the step
    ends: tuple[int, int]  # A' and C': rows of the other graph
    between: tuple[int, ...]  # B': rows of the other graph; empty: B has no counterpart there
    step: float  # influence along A → B → C
    step_there: float  # influence along A' → B' → C', over all B'
    direct: float  # influence along A → C
    direct_there: float  # influence along A' → C'
    skipped: float  # of the step


@dataclass(frozen=True, repr=False)
class Skips(Brief):
    """The two-step paths of one graph that the other one skips."""

    judged: float  # share of the influence along two-step paths whose ends have a partner
    lost: float  # share of the judged influence that the other graph does not send through B'
    skipped: Score  # share of the judged influence that it sends directly instead
    absent: float  # share of the judged influence that is skipped and whose B has no B' at all
    hops: tuple[Hop, ...]  # the most skipped first


@dataclass(frozen=True, repr=False)
class SkippedHops(Brief):
    """Skipped hops between two graphs of one prompt, in both directions."""

    first: Skips  # steps of the first graph that the second skips
    second: Skips  # steps of the second graph that the first skips


def skipped_hops(
    first: AttributionGraph,
    second: AttributionGraph,
    settings: CorrespondSettings | None = None,
    profiles: Profiles | None = None,
) -> SkippedHops:
    """Which two-step paths of either graph are single edges in the other, and how much they carry.

    `settings` and `profiles` say how features of two dictionaries are matched, as for `correspond`.

    Raises ComparisonError for graphs of two models, prompts or sets of targets.
    """
    chosen = settings or CorrespondSettings()
    _require_one_question(first, second)
    features = (_strongest(first), _strongest(second))
    match, alike = _counterparts(first, second, features, chosen, profiles)
    one, other = _Side(first, match.first, features[0]), _Side(second, match.second, features[1])
    return SkippedHops(
        _skips(one, other, alike, chosen), _skips(other, one, csr_array(alike.T), chosen)
    )


def _strongest(graph: AttributionGraph) -> Int[ndarray, " _feat"]:
    """Rows of the features with most influence, in rising order."""
    rows, arrived = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE)), influence_shares(graph)
    return np.sort(rows[np.argsort(-arrived[rows], kind="stable")[:MOST_FEATURES]])


def _require_one_question(first: AttributionGraph, second: AttributionGraph) -> None:
    one, other = first.provenance, second.provenance
    if not same_source(one.model, other.model):
        raise ComparisonError(
            f"Skipped hops are between two graphs of one model, got graphs of {one.model.name!r} "
            f"and {other.model.name!r}: trace the prompt in one of them with both dictionaries."
        )
    keys = token_keys(one, other)
    if keys[0] != keys[1]:
        raise ComparisonError(
            f"Skipped hops are between two graphs of one prompt, got {one.prompt!r} and "
            f"{other.prompt!r}: trace one of them with both dictionaries."
        )
    rows = [graph.nodes.take(graph.target_rows()) for graph in (first, second)]
    if sorted(map(str, rows[0])) != sorted(map(str, rows[1])):
        named = [", ".join(repr(target.text) for target in side.targets) for side in (one, other)]
        raise ComparisonError(
            f"Skipped hops are between two graphs of the same targets, got {named[0]} and "
            f"{named[1]}: trace both with the same --target."
        )


def _counterparts(
    first: AttributionGraph,
    second: AttributionGraph,
    features: tuple[Int[ndarray, " one"], Int[ndarray, " other"]],
    settings: CorrespondSettings,
    profiles: Profiles | None,
) -> tuple[Match, csr_array]:
    """Paired nodes, and of each feature of the first graph those of the second that are alike."""
    positions = np.arange(len(first.provenance.tokens))
    if same_dictionary(first, second):
        match = match_by_identity(first, second, positions)
        places = (_place(rows, len(g)) for rows, g in zip(features, (first, second), strict=True))
        one, other = (
            place[rows] for place, rows in zip(places, (match.first, match.second), strict=True)
        )
        alike = (one >= 0) & (other >= 0)
        one, other = one[alike], other[alike]
    else:
        every = [np.flatnonzero(g.nodes.is_kind(NodeKind.FEATURE)) for g in (first, second)]
        found = evidence(first, second, positions, settings.weights, profiles)
        similar = similarity(found, (len(every[0]), len(every[1])))
        apart = first.nodes.pos[every[0]][:, None] != second.nodes.pos[every[1]]
        chosen = [np.isin(rows, own) for rows, own in zip(every, features, strict=True)]
        similar[apart | ~chosen[0][:, None] | ~chosen[1]] = 0.0
        match = match_by_similarity(first, second, positions, similar, settings.min_similarity)
        one, other = np.nonzero(similar[np.ix_(*chosen)] > settings.min_similarity)
    shape = len(features[0]), len(features[1])
    alike = csr_array((np.ones(len(one)), (one, other)), shape=shape)
    return _ends(first, second, match, features), alike


def _ends(
    first: AttributionGraph,
    second: AttributionGraph,
    match: Match,
    features: tuple[Int[ndarray, " one"], Int[ndarray, " other"]],
) -> Match:
    """The pairs that may be ends of a path: errors and biases are no steps."""
    kept = np.ones(len(match.first), dtype=bool)
    for graph, rows, own in (
        (first, match.first, features[0]),
        (second, match.second, features[1]),
    ):
        of_kind = graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)[rows]
        kept &= of_kind | np.isin(rows, own)
    return Match(match.first[kept], match.second[kept])


def _place(rows: Int[ndarray, " feat"], count: int) -> Int[ndarray, " _node"]:
    """Place of every node among the features, or -1."""
    place = np.full(count, -1)
    place[rows] = np.arange(len(rows))
    return place


class _Side:
    """One graph: influence on its way through features, between paired nodes."""

    def __init__(
        self, graph: AttributionGraph, ends: Int[ndarray, " end"], feats: Int[ndarray, " feat"]
    ) -> None:
        flow, share = edge_influence(graph, influence_shares(graph)), graph_shares(graph)
        self.ends, self.feats, self.pos = ends, feats, graph.nodes.pos[feats]
        self.into: Float[ndarray, "end feat"] = flow[ends][:, feats].toarray()  # feature → C
        self.share: Float[ndarray, "feat end"] = share[feats][:, ends].toarray()
        self.direct: Float[ndarray, "end end"] = flow[ends][:, ends].toarray()  # A → C
        compared = graph.nodes.is_kind(*COMPARED).astype(np.float64)
        arriving = (compared @ flow) * graph.nodes.is_kind(NodeKind.FEATURE)
        self.every = float(arriving @ (share @ compared))  # along all two-step paths


@dataclass(frozen=True)
class _Steps:
    """Influence along the two-step paths into one C."""

    own: Float[ndarray, "feat end"]  # along A → B → C
    there: Float[ndarray, "feat end"]  # along A' → B' → C'
    lost: Float[ndarray, "feat end"]
    skipped: Float[ndarray, "feat end"]


def _skips(own: _Side, other: _Side, alike: csr_array, settings: CorrespondSettings) -> Skips:
    """What of one graph's steps the other skips, with the null."""
    judged = lost = skipped = absent = 0.0
    lone = np.diff(alike.indptr) == 0
    hops: list[Hop] = []
    for end, steps in enumerate(_steps(own, other, alike)):
        judged += float(steps.own.sum())
        lost += float(steps.lost.sum())
        skipped += float(steps.skipped.sum())
        absent += float(steps.skipped[lone].sum())
        hops = _best([*hops, *_hops(own, other, end, steps, alike)])
    rng = np.random.default_rng(settings.seed)
    null = [
        sum(float(one.skipped.sum()) for one in _steps(own, other, _exchanged(alike, other, rng)))
        for _ in range(settings.permutations)
    ]
    of_judged = judged or 1.0
    return Skips(
        judged=judged / (own.every or 1.0),
        lost=lost / of_judged,
        skipped=Score(skipped / of_judged, tuple(sorted(one / of_judged for one in null))),
        absent=absent / of_judged,
        hops=tuple(hops),
    )


def _steps(own: _Side, other: _Side, alike: csr_array) -> Iterator[_Steps]:
    """All two-step paths, by the node into which they lead."""
    gained = np.maximum(0.0, other.direct - own.direct)
    for end in range(len(own.ends)):
        here = own.into[end][:, None] * own.share
        there = alike @ (other.into[end][:, None] * other.share)
        lost = np.maximum(0.0, here - there)
        total = lost.sum(axis=0)
        part = np.divide(gained[end], total, out=np.zeros_like(total), where=total > 0)
        yield _Steps(here, there, lost, lost * np.minimum(1.0, part))


def _exchanged(alike: csr_array, other: _Side, rng: np.random.Generator) -> csr_array:
    """Counterparts exchanged at random for features at the same position."""
    order = np.arange(len(other.pos))
    order[np.argsort(other.pos, kind="stable")] = np.lexsort((rng.random(len(order)), other.pos))
    return csr_array(alike[:, order])


def _hops(own: _Side, other: _Side, end: int, steps: _Steps, alike: csr_array) -> Iterator[Hop]:
    """The most skipped paths into one node."""
    cells = steps.skipped.ravel()
    most = np.argsort(-cells, kind="stable")[:LISTED]
    for cell in most[cells[most] > 0].tolist():
        middle, source = divmod(cell, len(own.ends))
        between = alike.indices[alike.indptr[middle] : alike.indptr[middle + 1]]
        yield Hop(
            (int(own.ends[source]), int(own.feats[middle]), int(own.ends[end])),
            (int(other.ends[source]), int(other.ends[end])),
            tuple(other.feats[np.sort(between)].tolist()),
            step=float(steps.own[middle, source]),
            step_there=float(steps.there[middle, source]),
            direct=float(own.direct[end, source]),
            direct_there=float(other.direct[end, source]),
            skipped=float(steps.skipped[middle, source]),
        )


def _best(hops: list[Hop]) -> list[Hop]:
    return sorted(hops, key=lambda hop: (-hop.skipped, hop.nodes))[:LISTED]
