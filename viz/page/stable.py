"""Stability in a page: the class of each node and edge, and in what each node stays."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from graphs.analysis.prune import always_kept
from graphs.core.stability import CLASSES, Stability, varied_as
from viz.html.columns import columns
from viz.page.part import Part

# Numbers of classes in the page; core, contingent and noise are 1 to 3.
UNJUDGED, OUTSIDE = 0, 1 + len(CLASSES)


def stability_data(part: Part) -> dict[str, Any] | None:
    """Columns of classes by the page's nodes and edges; None if the graph does not have any.

    What is outside the pruned graph that was varied has a number of its own; nodes that no pruning
    removes have none of the classes.
    """
    found = part.graph.provenance.stability
    if found is None:
        return None
    shown = part.graph.nodes.take(part.rows)
    names = [str(node) for node in shown]
    place = {name: number for number, name in enumerate(found.nodes)}
    nodes = np.full(len(names), OUTSIDE, dtype=np.uint8)
    nodes[shown.is_kind(*always_kept(False))] = UNJUDGED
    by_place = _numbers(found, found.node_shares)
    known = {row: place[name] for row, name in enumerate(names) if name in place}
    for row, number in known.items():
        nodes[row] = by_place[number]
    ends = zip(found.sources, found.targets, strict=True)
    by_ends = dict(zip(ends, _numbers(found, found.edge_shares), strict=True))
    own = zip(part.source.tolist(), part.target.tolist(), strict=True)
    edges = [by_ends.get((known.get(s, -1), known.get(t, -1)), OUTSIDE) for s, t in own]
    return {
        **columns(nodes=nodes, edges=np.array(edges, dtype=np.uint8)),
        "classes": [asdict(one) for one in found.classes()],
        "varied": [f"{len(one.variants):,} {varied_as(one)}" for one in found.variations],
        "stays": {
            names[row]: [one.nodes[number] for one in found.variations]
            for row, number in known.items()
            if nodes[row] != UNJUDGED
        },
    }


def _numbers(found: Stability, shares: tuple[float | None, ...]) -> list[int]:
    """Number of the class of each share."""
    return [
        UNJUDGED if share is None else 1 + CLASSES.index(found.class_of(share)) for share in shares
    ]
