"""Graphs with made-up heads of edges, heads of nodes and looks, for what reads these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphs.core.attended import Attended, EdgeParts, Look, LookPair, LookPart
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.head_totals import HeadTotals

N_HEADS = 4
KEPT = 3  # heads of an edge


def with_heads(
    graph: AttributionGraph, looks: tuple[Look, ...] = (), seed: int = 0
) -> AttributionGraph:
    """Every edge has up to three heads of layers below 2; parts add up to it."""
    rng = np.random.default_rng(seed)
    count = graph.weights.nnz
    heads = np.array([rng.permutation(2 * N_HEADS)[:KEPT] for _ in range(count)])
    heads = heads.reshape(count, KEPT)
    there = rng.random((count, KEPT)) < 0.8
    part = np.where(there, rng.standard_normal((count, KEPT)), 0.0)
    order = np.argsort(-np.abs(part), axis=1, kind="stable")
    heads, there, part = (np.take_along_axis(a, order, 1) for a in (heads, there, part))
    bypass = rng.standard_normal(count)
    edges = EdgeParts(
        target=edge_targets(graph.weights),
        source=graph.weights.indices.astype(np.int64),
        bypass=bypass,
        rest=graph.weights.data - bypass - part.sum(1),
        layer=np.where(there, heads // N_HEADS, -1),
        head=np.where(there, heads % N_HEADS, -1),
        part=part,
    )
    rows = np.flatnonzero(graph.expanded)
    parts = rng.standard_normal((len(rows), 2, N_HEADS))
    totals = HeadTotals(rows, parts, rng.standard_normal(len(rows)))
    return replace(graph, attended=Attended(edges, looks), heads=totals)


def look(
    layer: int, head: int, attention: tuple[float, ...], key: int, nodes: tuple[str, str], **more
) -> Look:
    """A look with one component at the query and one at the key, the context, and a pair."""
    at_query, at_key = (
        (
            LookPart(node=node, label=label, part=part, running=part / 2),
            LookPart(node=None, label="", part=0.25, running=0.0),
        )
        for node, label, part in ((nodes[0], "", 1.5), (nodes[1], "elsewhere", -0.5))
    )
    fields = {
        "layer": layer,
        "head": head,
        "query": len(attention) - 1,
        "carries": 0.125,
        "attention": attention,
        "key": key,
        "score": 2.0,
        "difference": 1.75,
        "log_odds": -0.5,
        "at_query": at_query,
        "at_keys": at_key,
        "pairs": (LookPair(query=nodes[0], key=None, part=0.75),),
        "pairs_share": 0.3,
    }
    return Look(**(fields | more))
