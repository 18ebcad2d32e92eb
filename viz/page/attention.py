"""Attention in a page: heads of edges, what heads write into nodes, and looks.

What heads carry along an edge is in the unit of the edge's share, so that parts add up to it:

    share[target, source] = past + Σ part of its strongest heads + rest      all over Σ|row|

What makes head nodes look where they look has shares of its own, over the sum of its sizes.

Size, in characters: 51 per edge, of the EDGES strongest; 51 per node, of the NODES strongest;
12 per effect through patterns, of the EFFECTS strongest; looks that carry most, as far as they fit
in LOOKS, about 1,000 each and 10 per token of the prompt.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.head_shares import head_shares
from graphs.core.attended import EdgeParts, Look, LookPart
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.head_totals import HeadTotals
from graphs.core.nodes import NodeId, NodeKind
from graphs.naming.names import Names
from viz.html.columns import columns
from viz.page.part import Part
from viz.text.words import label, plain_label, visible

EDGES, NODES = 20_000, 5_000  # that have heads in a page
EFFECTS = 20_000  # through patterns
LOOKS = 400_000  # characters of all looks
PER_NODE = 5  # heads
NO_HEAD = 2**16 - 1  # number of a head that is not there


def attention_data(part: Part) -> dict[str, Any] | None:
    """Heads of a part's edges and nodes, and looks; None if the graph has none of them."""
    graph = part.graph
    attended, totals = graph.attended, graph.heads
    edges = None if attended is None else attended.edges
    if attended is None and totals is None and graph.score_weights is None:
        return None
    n_heads = _heads_per_layer(graph)
    return {
        "nHeads": n_heads,
        "edges": None if edges is None else _edges(part, edges, n_heads),
        "carried": None if edges is None else _carried(graph, edges, n_heads),
        "nodes": None if totals is None else _nodes(part, totals, n_heads),
        "effects": None if graph.score_weights is None else _effects(part, graph.score_weights),
        "looks": [] if attended is None else _looks(graph, attended.looks),
    }


def attention_remarks(part: Part, data: dict[str, Any] | None) -> list[str]:
    """What of it is not in the page, in sentences."""
    attended, remarks = part.graph.attended, list[str]()
    if data is None or attended is None:
        return remarks
    if attended.edges is not None and len(part.edges) > EDGES:
        remarks.append(f"This page contains the heads of its {EDGES:,} strongest edges.")
    if len(data["looks"]) < len(attended.looks):
        kept = f"{len(data['looks']):,} of {len(attended.looks):,} looks"
        remarks.append(f"It contains {kept} of heads, those that carry most.")
    return remarks


def _heads_per_layer(graph: AttributionGraph) -> int:
    known = 1 if graph.heads is None else graph.heads.parts.shape[2]
    if graph.attended is None:
        return known
    most = [0, *(look.head for look in graph.attended.looks)]
    if graph.attended.edges is not None:
        most.append(int(graph.attended.edges.head.max(initial=0)))
    return max(known, 1 + max(most))


def _edges(part: Part, edges: EdgeParts, n_heads: int) -> dict[str, Any]:
    """Columns by the page's edges, the strongest first; nan for edges that are not known."""
    chosen = part.edges[:EDGES]
    target, source = part.strengths.target[chosen], part.strengths.source[chosen]
    place = edges.places(target, source)
    total = part.graph.row_totals()[target]
    scale = np.divide(1.0, total, out=np.zeros(len(chosen)), where=total > 0)
    layer, head = (_at(column, place, -1) for column in (edges.layer, edges.head))
    past, rest = (_at(column, place, np.nan) * scale for column in (edges.bypass, edges.rest))
    return {
        "kept": edges.layer.shape[1],
        **columns(
            heads=_numbers(layer, head, n_heads).ravel(),
            parts=(_at(edges.part, place, np.nan) * scale[:, None]).astype(np.float32).ravel(),
            past=past.astype(np.float32),
            rest=rest.astype(np.float32),
        ),
    }


def _at(column: ndarray, place: Int[ndarray, " edge"], missing: int | float) -> ndarray:
    """Entries of a column, and `missing` at the place -1."""
    return np.concatenate(
        [column, np.full_like(column[:1], missing, shape=(1, *column.shape[1:]))]
    )[place]


def _numbers(layer: ndarray, head: ndarray, n_heads: int) -> ndarray:
    """One number for each head."""
    found = layer.astype(np.int64) * n_heads + head
    return np.where((layer < 0) | (found >= NO_HEAD), NO_HEAD, found).astype(np.uint16)


def _carried(graph: AttributionGraph, edges: EdgeParts, n_heads: int) -> dict[str, Any]:
    """Shares of the influence along edges, by number of the head."""
    found = head_shares(graph, edges)
    heads = np.zeros((len(found.heads), n_heads))
    heads[:, : found.heads.shape[1]] = found.heads
    return {**columns(heads=heads.ravel()), "past": found.past, "rest": found.rest}


def _nodes(part: Part, totals: HeadTotals, n_heads: int) -> dict[str, Any]:
    """Heads that write most into the strongest nodes with rows, all other heads, and the rest."""
    place = np.searchsorted(totals.row, part.rows)
    known = np.append(totals.row, -1)[place] == part.rows
    order = np.argsort(-part.strengths.arrived[part.rows], kind="stable")
    numbers = np.sort(order[known[order]][:NODES])
    place = place[numbers]
    parts = totals.parts[place].reshape(len(place), -1)
    strongest = np.argsort(-np.abs(parts), axis=1, kind="stable")[:, :PER_NODE]
    taken = np.take_along_axis(parts, strongest, 1)
    layer, head = strongest // totals.parts.shape[2], strongest % totals.parts.shape[2]
    return {
        "kept": strongest.shape[1],
        **columns(
            nodes=numbers.astype(np.int32),
            heads=_numbers(layer, head, n_heads).ravel(),
            parts=taken.astype(np.float32).ravel(),
            others=(parts.sum(1, dtype=np.float64) - taken.sum(1, dtype=np.float64)).astype(
                np.float32
            ),
            rest=totals.rest[place].astype(np.float32),
        ),
    }


def _effects(part: Part, scores: csr_array) -> dict[str, Any]:
    """Effects through patterns between the page's nodes, the largest shares first."""
    sums = row_sizes(scores)
    found = csr_array(scores[part.rows][:, part.rows]).tocoo()
    totals = sums[part.rows][found.row]
    share = np.divide(found.data, totals, out=np.zeros(len(totals)), where=totals > 0)
    order = np.argsort(-np.abs(share), kind="stable")[:EFFECTS]
    small = np.uint16 if len(part.rows) <= 2**16 else np.int32
    return columns(
        source=found.col[order].astype(small),
        target=found.row[order].astype(small),
        share=share[order].astype(np.float32),
        total=sums[part.rows],
    )


def _looks(graph: AttributionGraph, looks: tuple[Look, ...]) -> list[dict[str, Any]]:
    """The looks that carry most, as far as there is room."""
    found: list[dict[str, Any]] = []
    room, names = LOOKS, Names(graph)
    for look in looks:
        data = _look(names, look)
        room -= len(json.dumps(data, ensure_ascii=False, separators=(",", ":")))
        if room < 0:
            break
        found.append(data)
    return found


def _look(names: Names, look: Look) -> dict[str, Any]:
    def end(name: str | None) -> list[str | None]:
        return [name, "" if name is None else _text(names, name)]

    def side(parts: tuple[LookPart, ...]) -> list[list[str | float | None]]:
        return [
            [
                one.node,
                visible(one.label) or end(one.node)[1],
                _round(one.part),
                _round(one.running),
            ]
            for one in parts
            if one.part or one.running
        ]

    return {
        "layer": look.layer,
        "head": look.head,
        "query": look.query,
        "key": look.key,
        "carries": look.carries,
        "attention": [_round(share) for share in look.attention],
        "score": look.score,
        "difference": look.difference,
        "logOdds": look.log_odds,
        "atQuery": side(look.at_query),
        "atKeys": side(look.at_keys),
        "pairs": [
            [*end(one.query), *end(one.key), _round(one.part)] for one in look.pairs if one.part
        ],
        "pairsShare": look.pairs_share,
    }


def _text(names: Names, name: str) -> str:
    """What a node of the prompt is; empty for a feature that the graph does not have."""
    node = NodeId.parse(name)
    if node in names.graph:
        return label(names, names.graph.find(node))
    return "" if node.kind == NodeKind.FEATURE else plain_label(names.graph, node)


def _round(number: float) -> float:
    return float(f"{number:.4g}")
