"""Heads, positions and edges by the names that people give them.

4.5                     head 5 of layer 4
Dallas, @7              the token Dallas, or position 7
token:Dallas>Texas      edges from nodes to nodes, by names (`graphs.analysis.select`)
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.select import MARKS, SelectionError, select
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.formats.neuronpedia.names import own_spelling


def head_named(name: str, n_layers: int) -> tuple[int, int]:
    """Layer and head of a name.  Raises SelectionError for anything else, or no such layer."""
    found = re.fullmatch(r"(?:head:)?(\d{1,6})[./](\d{1,6})", name.strip())
    if found is None:
        raise SelectionError(f"A head is LAYER.HEAD, as in 4.5, got {name!r}.")
    layer, head = int(found[1]), int(found[2])
    if layer >= n_layers:
        raise SelectionError(
            f"There is no layer {layer}: the model has layers 0 to {n_layers - 1}."
        )
    return layer, head


def position_named(graph: AttributionGraph, name: str, option: str) -> int:
    """The position of a token by its text, or of @POSITION.

    Raises SelectionError if there is none, and for a text of several, which it lists.
    """
    tokens, name = graph.provenance.tokens, name.translate(MARKS)
    same = [pos for pos, token in enumerate(tokens) if name in (token, token.strip())]
    number = re.fullmatch(r"@?(\d{1,9})", name)
    if len(same) == 1:
        return same[0]
    if same:
        places = ", ".join(f"@{pos}" for pos in same)
        raise SelectionError(f"{option} {name!r} is at several positions: give one of {places}.")
    if number is None:
        known = ", ".join(f"{token!r} @{pos}" for pos, token in list(enumerate(tokens))[-12:])
        raise SelectionError(f"No token is {name!r} for {option}: the prompt has {known}.")
    if int(number[1]) >= len(tokens):
        raise SelectionError(
            f"There is no position {number[1]} for {option}: the prompt has positions 0 to "
            f"{len(tokens) - 1}."
        )
    return int(number[1])


def edges_named(
    graph: AttributionGraph, name: str, annotations: Annotations = NO_ANNOTATIONS
) -> Int[ndarray, " edge"]:
    """Places among the stored weights of the edges of a name, strongest first.

    Raises SelectionError for names of no node, and if no edge leads from the one to the other.
    """
    groups = annotations.rows(graph)
    places = [at for at, character in enumerate(name) if character in ">→"]
    for at in places:
        ends = name[:at].strip(), name[at + 1 :].strip()
        if not all(ends):
            continue
        try:
            source, target = (select(graph, own_spelling(end, graph), groups) for end in ends)
        except SelectionError:
            if len(places) == 1:
                raise
            continue
        inside = source[graph.weights.indices] & target[edge_targets(graph.weights)]
        found = np.flatnonzero(inside)
        if not len(found):
            raise SelectionError(f"No edge leads from {ends[0]} to {ends[1]} in this graph.")
        return found[np.argsort(-np.abs(graph.weights.data[found]), kind="stable")]
    raise SelectionError(
        f"An edge is SOURCE>TARGET, as in token:Dallas>concept:Texas, got {name!r}."
    )
