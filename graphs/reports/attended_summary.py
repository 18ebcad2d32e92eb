"""What a summary says of attention: which heads carry edges, and at what heads look, and for what.

Looks from one token at another are one line, whose heads are those that write most into nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphs.analysis.head_shares import head_shares
from graphs.core.attended import Look
from graphs.core.graph import AttributionGraph
from graphs.core.head_totals import strongest_heads
from graphs.core.nodes import NodeId, NodeKind

HEADS = 5  # that are named
REASONS = 2  # components at the query that are named


@dataclass(frozen=True)
class LookReason:
    """A component at the query, and its label or token, which may be empty."""

    node: str
    text: str


@dataclass(frozen=True)
class LookLine:
    """Heads that look from one token at another."""

    query: int  # position
    key: int
    heads: tuple[tuple[int, int, float], ...]  # layer, head and attention; that carry most first
    carries: float  # share of all influence that they write into nodes at the query
    reasons: tuple[LookReason, ...]  # at the query, of the first head


@dataclass(frozen=True)
class CarriedByHeads:
    """What is known of the heads of a graph's edges, and of their looks."""

    edges: int
    strongest: tuple[tuple[int, int, float], ...]  # layer, head, share of influence along edges
    past: float | None  # share that goes past all attention; None: heads of edges are not known
    looks: tuple[LookLine, ...]  # that carry most first


def carried_by_heads(graph: AttributionGraph) -> CarriedByHeads | None:
    """A summary of the heads of edges and of looks; None if the graph does not have them."""
    found = graph.attended
    if found is None:
        return None
    shares = None if found.edges is None else head_shares(graph, found.edges)
    between: dict[tuple[int, int], list[Look]] = {}
    for look in found.looks:
        between.setdefault((look.query, look.key), []).append(look)
    lines = [
        LookLine(
            query=query,
            key=key,
            heads=tuple((one.layer, one.head, one.attention[key]) for one in looks),
            carries=sum(one.carries for one in looks),
            reasons=_reasons(graph, looks[0]),
        )
        for (query, key), looks in between.items()
    ]
    return CarriedByHeads(
        edges=0 if found.edges is None else len(found.edges.target),
        strongest=() if shares is None else tuple(strongest_heads(shares.heads, HEADS)),
        past=None if shares is None else shares.past,
        looks=tuple(sorted(lines, key=lambda line: -line.carries)),
    )


def _reasons(graph: AttributionGraph, look: Look) -> tuple[LookReason, ...]:
    """What at the query speaks most for the key, with labels of features and texts of tokens."""
    parts = sorted(look.at_query, key=lambda part: -part.part)
    named = [(part.node, part.label) for part in parts if part.node is not None and part.part > 0]
    return tuple(LookReason(node, label or _token(graph, node)) for node, label in named[:REASONS])


def _token(graph: AttributionGraph, name: str) -> str:
    node = NodeId.parse(name)
    return graph.token_text(node.pos or 0) if node.kind == NodeKind.TOKEN else ""
