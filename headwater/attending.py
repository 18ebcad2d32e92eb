"""One call each: the heads of a graph's edges, and why a head looks where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import graphs
from headwater.attended import Heads, Scores, asked, edges_asked, heads_in, scores_in
from headwater.errors import ArgumentError
from headwater.graph import as_graph
from headwater.intervening import experiment_of
from headwater.model import Model


def heads(
    graph: graphs.AttributionGraph | str | Path,
    edge: str | None = None,
    *,
    looks: int = 0,
    model: Model | str | Path | None = None,
    transcoders: str | Path | None = None,
    device: str = "auto",
) -> Heads:
    """The heads that carry each edge of a graph, in the order of their weights.

        hw.heads(graph)
        hw.heads(graph, "token:Dallas>concept:Texas")
        hw.heads(graph, looks=24).graph.save("dallas.html")

    graph: a graph, or its file; a pruned one, since a whole graph has millions of edges.
    edge: SOURCE>TARGET, each a name of nodes: only these edges, and the paths of heads that the
    strongest takes.
    looks: why so many of the heads that write most look where they look; they are kept in the
    result's graph, with the heads of all its edges.
    model, transcoders: as in `intervene`.

    Raises SelectionError for names of no node or edge and for graphs of millions of edges,
    ArgumentError for looks that are no number from 0 on, and as `intervene`.
    """
    taken = as_graph(graph)
    if isinstance(looks, bool) or not isinstance(looks, int) or looks < 0:
        raise ArgumentError(f"looks is a number from 0 on, got {looks!r}.")
    edges = edges_asked(taken, edge)
    return heads_in(experiment_of(taken, model, transcoders, device), taken, edges, looks)


def attention_scores(
    graph: graphs.AttributionGraph | str | Path,
    layer: int,
    head: int,
    query: int | str,
    key: int | str,
    *,
    instead_of: int | str | Sequence[int | str] = (),
    model: Model | str | Path | None = None,
    transcoders: str | Path | None = None,
    device: str = "auto",
) -> Scores:
    """Why a head looks at a key from a query: its score by what is at the query and at the key.

        hw.attention_scores(graph, 4, 5, query="is", key="capital")

    query, key: positions, or texts of tokens.
    instead_of: keys that compete, each as much as it is attended to; by default all that are no
    prefix.
    model, transcoders: as in `intervene`.

    Raises SelectionError for no such head or position, and as `intervene`.
    """
    taken = as_graph(graph)
    rivals = [instead_of] if isinstance(instead_of, int | str) else instead_of
    score = asked(taken, f"{layer}.{head}", _place(query), _place(key), [*map(_place, rivals)])
    return scores_in(experiment_of(taken, model, transcoders, device), taken, score)


def _place(given: object) -> str:
    """A position or a token as a name."""
    if isinstance(given, str):
        return given
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ArgumentError(f"A position is a number from 0 on, or a token's text, got {given!r}.")
    return f"@{given}"
