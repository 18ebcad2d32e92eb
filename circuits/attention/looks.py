"""Looks: the heads that write most into a graph's nodes, and why each looks where it looks.

What the nodes at a position read of a head is one covector on what the head mixes there: the sum of
theirs, each with the sign of its part, weighted so that sizes of parts are shares of influence
(`circuits.attention.head_sources`).  Along it, the head carries most from one key, and the score of
that key is taken apart (`circuits.attention.scores`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from circuits.attention.component_labels import component_labels
from circuits.attention.graph_rows import covectors_of
from circuits.attention.head_sources import HeadSources, ReadHeads, shares_of
from circuits.attention.scores import attention_score, score_pairs
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64
from graphs.analysis.influence import influence_shares
from graphs.attention.scores import AttentionScore, ScorePairs, Side, is_context
from graphs.core.attended import KEPT_LOOKS, Attended, EdgeParts, Look, LookPair, LookPart
from graphs.core.graph import AttributionGraph

PARTS = 8  # of each side that are kept
WITH_PAIRS, PAIRS = 4, 8  # looks with pairs, which take ten times as long, and pairs of each


class Looked(NamedTuple):
    """Looks, those that carry most first, and a check."""

    looks: tuple[Look, ...]
    miss: float  # largest of a score by the parts of a side


def looks(experiment: Experiment, count: int = KEPT_LOOKS) -> Looked:
    """Why the heads that write most into a graph's nodes look where they look."""
    with exactly():
        sources = HeadSources(experiment)
        read = read_by_nodes(experiment, sources)
        share = in_float64(read.share).numpy()
        order = np.argsort(-share, axis=None, kind="stable")[:count]
        chosen = np.stack(np.unravel_index(order, share.shape), 1)
        found = [
            _scored(experiment, sources, read, tuple(place), pairs=number < WITH_PAIRS)
            for number, place in enumerate(chosen.tolist())
            if share[tuple(place)] > 0
        ]
    labels = _labels(experiment, found)
    made = tuple(_look(experiment, one, float(share[one.place]), labels) for one in found)
    return Looked(made, max((one.score.score.miss for one in found), default=0.0))


def with_looks(
    graph: AttributionGraph, looked: Looked, edges: EdgeParts | None = None
) -> AttributionGraph:
    """The graph with looks, their check, and with heads of edges if there are any."""
    checked = graph.with_checks(scores_max=looked.miss)
    return replace(checked, attended=Attended(edges, looked.looks))


def read_by_nodes(experiment: Experiment, sources: HeadSources) -> ReadHeads:
    """What the nodes of a graph that have rows read of each head."""
    graph, read = experiment.graph, sources.nothing_read()
    arrived = influence_shares(graph)
    nodes = np.flatnonzero(graph.expanded & (arrived > 0))
    covectors, _ = covectors_of(experiment, nodes)
    order = np.argsort(-covectors.level, kind="stable")
    step = sources.rows_at_once(in_place=True)
    for start in range(0, len(order), step):
        block = order[start : start + step]
        rows = sources.rows_in_place(covectors.take(block))
        sources.read(rows, shares_of(rows, arrived[nodes[block]]), read)
    return read


class _Scored(NamedTuple):
    place: tuple[int, int, int]  # layer, head, query
    score: AttentionScore
    pairs: ScorePairs | None


def _scored(
    experiment: Experiment,
    sources: HeadSources,
    read: ReadHeads,
    place: tuple[int, ...],
    *,
    pairs: bool,
) -> _Scored:
    layer, head, query = place
    key = sources.main_key(layer, head, query, read.toward[layer, head, query])
    score = attention_score(experiment, layer, head, query, key)
    found = score_pairs(experiment, layer, head, query, key, PAIRS) if pairs else None
    return _Scored((layer, head, query), score, found)


def _labels(experiment: Experiment, found: list[_Scored]) -> dict[int, str]:
    """What features among the components are, by row of the components."""
    rows: set[int] = set()
    for one in found:
        n_prefix = experiment.graph.provenance.n_prefix
        for side in _sides(one.score):
            rows |= set(_strongest(one.score, side, n_prefix).tolist())
        if one.pairs is not None:
            rows |= {*one.pairs.query.tolist(), *one.pairs.key.tolist()} - {-1}
    return component_labels(experiment, sorted(rows))


def _look(experiment: Experiment, one: _Scored, share: float, labels: dict[int, str]) -> Look:
    (layer, head, query), found = one.place, one.score
    n_prefix = experiment.graph.provenance.n_prefix
    at_query, at_keys = (_parts(found, side, labels, n_prefix) for side in _sides(found))
    nodes = found.nodes

    def name(row: int) -> str | None:
        return None if row < 0 else str(nodes[row])

    pairs = one.pairs
    return Look(
        layer=layer,
        head=head,
        query=query,
        carries=share,
        attention=tuple(found.attention[: query + 1].tolist()),
        key=found.key,
        score=found.score.value,
        difference=None if found.odds is None else found.odds.value,
        log_odds=found.log_odds,
        at_query=at_query,
        at_keys=at_keys,
        pairs=()
        if pairs is None
        else tuple(
            LookPair(query=name(int(q)), key=name(int(k)), part=float(part))
            for q, k, part in zip(pairs.query, pairs.key, pairs.weight, strict=True)
        ),
        pairs_share=None if pairs is None else pairs.share,
    )


def _sides(found: AttentionScore) -> tuple[Side, Side]:
    return found.explained.at_query, found.explained.at_keys


def _strongest(found: AttentionScore, side: Side, n_prefix: int) -> Int[ndarray, " part"]:
    """The strongest components of a side that are not context."""
    weight = np.where(is_context(found.nodes, n_prefix), 0.0, np.abs(side.weight))
    order = np.argsort(-weight, kind="stable")[:PARTS]
    return order[weight[order] > 0]


def _parts(
    found: AttentionScore, side: Side, labels: dict[int, str], n_prefix: int
) -> tuple[LookPart, ...]:
    parts = [
        LookPart(
            node=str(found.nodes[row]),
            label=labels.get(row, ""),
            part=float(side.weight[row]),
            running=float(side.running[row]),
        )
        for row in _strongest(found, side, n_prefix).tolist()
    ]
    context = is_context(found.nodes, n_prefix)
    own = float(side.weight[context].sum()) + side.constant
    running = float(side.running[context].sum())
    return (*parts, LookPart(node=None, label="", part=own, running=running))
