"""Payload: all that a page knows about a graph, as JSON.

Numbers are columns; texts are made visible here, so that the page shows what it gets.  Nodes are
in the graph's order; edges are in order of what they carry, strongest first, and name their ends by
number among the nodes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.prune import DEFAULTS, prune
from graphs.analysis.scores import scores
from graphs.analysis.summary import weights_said
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.descriptions import Description
from graphs.core.graph import AttributionGraph, row_sizes
from graphs.core.identity import feature_numbering
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.formats.neuronpedia.pages import feature_page
from graphs.groups.grouping import MOST_FEATURES, find_groups, named
from viz.html.columns import columns
from viz.page.part import Part
from viz.page.whole import whole_grid
from viz.plot.layout import Cast, Placement, place_together
from viz.text.checked import header_lines
from viz.text.words import heading, label, mark, origin, visible

_LEVELS = (
    0.3,
    0.5,
    0.65,
    DEFAULTS.node_threshold,
    0.95,
)  # thresholds up to which nodes have a layout
_MOST_AT_FIRST = 400  # nodes
_WIDE, _HIGH = 52.0, 20.0  # units that a small graph is spread over: pixels are for the marks
_ROOM = 2_850_000  # characters of a graph; what is known of weak features gives way


def graph_data(
    part: Part,
    levels: Sequence[tuple[Int[ndarray, " _in"], Placement]],
    annotations: Annotations = NO_ANNOTATIONS,
) -> dict[str, Any]:
    """One graph; `levels` are sets of the part's nodes that have a layout together, rising."""
    graph, header = part.graph, part.graph.provenance
    whole = scores(graph)
    partial = len(part.rows) < part.n_nodes or _carried(part) < 1.0
    data: dict[str, Any] = {
        "heading": heading(graph),
        "origin": origin(graph),
        "key": _key(graph),
        "dictionary": _dictionary_key(graph),
        "tokens": [visible(token) for token in header.tokens],
        "nLayers": header.model.n_layers,
        "remarks": _remarks(part),
        "exact": {"nodes": part.exact_nodes, "edges": part.exact_edges},
        "partial": partial,
        "whole": whole_grid(part) if partial else None,
        "checks": [vars(line) for line in header_lines(header)],
        "failures": list(header.failures),
        "scores": {"replacement": whole.replacement, "completeness": whole.completeness},
        "defaults": {"nodes": _opening(part), "edges": DEFAULTS.edge_threshold},
        "featurePage": feature_page(header),
        "nodes": _nodes(part),
        "edges": _edges(part),
        "differences": columns(targets=part.whole.astype(np.int32), sizes=part.differences.ravel()),
        "levels": [level_data(part, rows, placement) for rows, placement in levels],
        "measured": [line.model_dump() for line in header.measured],
        "annotations": annotations.model_dump(mode="json"),
        "suggested": _suggested(graph, annotations),
    }
    features, without = _features(part, _ROOM - len(as_json(data)))
    if without:
        data["remarks"].append(f"Examples of {without:,} weak features are not in this page.")
    return {**data, "features": features}


def placed(part: Part) -> list[tuple[Int[ndarray, " _in"], Placement]]:
    """Layouts of a graph that stands alone."""
    own = part.graph.nodes.pos[part.rows]
    return [(rows, placements[0]) for (rows,), placements in placed_together((part, own))]


def placed_together(
    *parts: tuple[Part, Int[ndarray, " _kept"]],
) -> list[tuple[tuple[Int[ndarray, " _in"], ...], tuple[Placement, ...]]]:
    """For each level the nodes of each part and where they go; columns are given and shared."""
    found: list[tuple[tuple[Int[ndarray, " _in"], ...], tuple[Placement, ...]]] = []
    for upto in (*_LEVELS, np.inf):
        chosen = tuple(np.flatnonzero(_reached(part, upto)) for part, _ in parts)
        if found and all(map(np.array_equal, found[-1][0], chosen)):
            continue
        casts = [
            Cast(
                part.graph.nodes.take(part.rows[rows]),
                part.graph.provenance.model.n_layers,
                part.strengths.arrived[part.rows[rows]],
                columns[rows],
            )
            for (part, columns), rows in zip(parts, chosen, strict=True)
        ]
        found.append((chosen, place_together(*casts, wide=_WIDE, high=_HIGH)))
    return found


def as_json(data: object) -> str:
    """JSON for a script element: it holds no end of one, and no number that JSON lacks."""
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _opening(part: Part) -> float:
    """The threshold at which the page opens: that of pruning, or lower for few enough nodes."""
    before = np.sort(part.node_before)
    if len(before) <= _MOST_AT_FIRST or before[_MOST_AT_FIRST] >= DEFAULTS.node_threshold:
        return DEFAULTS.node_threshold
    return max(0.05, float(np.floor(before[_MOST_AT_FIRST] / 0.05) * 0.05))


def _reached(part: Part, upto: float) -> ndarray:
    always = part.graph.nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, *TARGET_KINDS)
    return (part.node_before < upto) | always[part.rows]


def _key(graph: AttributionGraph) -> str:
    """The same for all graphs that annotations of one of them fit."""
    header = graph.provenance
    parts = (header.model.name, header.dictionary.name, header.token_ids, header.tokens)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _dictionary_key(graph: AttributionGraph) -> str | None:
    """The same for all graphs of `one_dictionary`, which share labels; None: it is unknown."""
    numbering = feature_numbering(graph)
    if numbering is None:
        return None
    parts = [*numbering, *([None] * (2 - len(numbering)))]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _remarks(part: Part) -> list[str]:
    said = list(weights_said(part.graph))
    if len(part.rows) < part.n_nodes:
        said.append(f"This page holds the {len(part.rows):,} strongest of {part.n_nodes:,} nodes.")
    if len(part.edges) < part.n_edges:
        said.append(
            f"Of {part.n_edges:,} edges it holds {len(part.edges):,}, the strongest and those to "
            f"predictions, which carry {_carried(part):.1%} of what edges carry."
        )
    targets = len(part.graph.target_rows())
    if len(part.whole) < targets and len(part.edges) < part.n_edges:
        said.append(
            f"All inputs from these nodes are here for the {len(part.whole):,} most probable of "
            f"{targets:,} predictions; differences of others lack weak inputs."
        )
    return said


def _carried(part: Part) -> float:
    """What the part's edges carry of what all edges carry."""
    carried = part.strengths.carried
    held = np.zeros(len(carried), dtype=bool)
    held[part.edges] = True
    if not np.any(carried[~held] > 0):
        return 1.0
    return float(carried[held].sum() / carried.sum())


def _nodes(part: Part) -> dict[str, Any]:
    graph, rows = part.graph, part.rows
    nodes = graph.nodes.take(rows)
    totals = row_sizes(graph.weights) + graph.dropped_absolute
    seed = graph.seed / (float(graph.seed.sum()) or 1.0)
    numbers: list[int] = rows.tolist()
    return {
        **columns(
            kind=nodes.kind.astype(np.uint8),
            layer=nodes.layer.astype(np.int32),
            pos=nodes.pos.astype(np.int32),
            activation=nodes.activation.astype(np.float32),
            arrived=part.strengths.arrived[rows],
            before=part.node_before,
            seed=seed[rows],
            total=totals[rows],
            value=nodes.value.astype(np.float32),
            expanded=graph.expanded[rows].astype(np.uint8),
            frequency=np.array([_frequency(graph, row) for row in numbers], dtype=np.float32),
        ),
        "names": [str(node) for node in nodes],
        "labels": [label(graph, row) for row in numbers],
        "marks": [_mark(graph, row) for row in numbers],
    }


def _frequency(graph: AttributionGraph, row: int) -> float:
    """Share of tokens on which a feature fires; NaN where nobody knows."""
    description = graph.description(row)
    known = None if description is None else description.frequency
    return np.nan if known is None else known


def _mark(graph: AttributionGraph, row: int) -> str | None:
    """A few letters beside a node; None: its label, where somebody described it."""
    description = graph.description(row)
    if description is not None and description.label:
        return None
    return mark(graph, row)


def _edges(part: Part) -> dict[str, Any]:
    small = np.uint16 if len(part.rows) <= 2**16 else np.int32
    return columns(
        source=part.source.astype(small),
        target=part.target.astype(small),
        share=part.strengths.share[part.edges].astype(np.float32),
        before=part.edge_before.astype(np.float32),
    )


def level_data(part: Part, rows: Int[ndarray, " _in"], placement: Placement) -> dict[str, Any]:
    """Places of these nodes; the others have none."""
    return {
        **columns(
            nodes=rows.astype(np.uint16 if len(part.rows) <= 2**16 else np.int32),
            x=placement.x.astype(np.float32),
            y=placement.y.astype(np.float32),
            columns=placement.columns.astype(np.int32),
            columnX=placement.column_x,
            columnWidth=placement.column_width,
            rowY=placement.row_y,
            rowHeight=placement.row_height,
        ),
        "rows": placement.rows,
        "width": placement.width,
        "height": placement.height,
    }


def _features(part: Part, room: int) -> tuple[dict[str, Any], int]:
    """What is known of features, strongest first, in so many characters; how many lack examples."""
    graph = part.graph
    order = part.rows[np.argsort(-part.strengths.arrived[part.rows], kind="stable")]
    found: dict[str, Any] = {}
    without = 0
    for row in order.tolist():
        description = graph.description(row)
        key = f"{graph.nodes.layer[row]}/{graph.nodes.index[row]}"
        if description is None or key in found:
            continue
        brief = description.model_copy(update={"examples": (), "histogram": ()})
        for told in (description, brief):
            data = _described(told)
            size = len(json.dumps(data, ensure_ascii=False)) + len(key)
            if size <= room:
                found[key] = data
                room -= size
                break
        without += len(description.examples) > len(found.get(key, {"examples": ()})["examples"])
    return found, without


def _described(description: Description) -> dict[str, Any]:
    return {
        "label": visible(description.label) if description.label else "",
        "said": [visible(token) for token in description.said],
        "raised": [visible(token) for token in description.raised],
        "lowered": [visible(token) for token in description.lowered],
        "frequency": description.frequency,
        "histogram": list(description.histogram),
        "largest": description.largest,
        "examples": [
            {
                "tokens": [visible(token) for token in example.tokens],
                "activations": [float(f"{value:.3g}") for value in example.activations],
            }
            for example in description.examples
        ],
    }


def _suggested(graph: AttributionGraph, annotations: Annotations) -> list[dict[str, Any]]:
    """Automatic groups among the features that pruning leaves; a person's own stay as they are."""
    pruned = prune(graph)
    if np.sum(pruned.nodes.is_kind(NodeKind.FEATURE)) > MOST_FEATURES:
        return []
    own = Annotations(groups=tuple(g for g in annotations.groups if not g.automatic))
    groups = named(pruned, find_groups(pruned, own=list(own.rows(pruned).values())))
    automatic = (group for group in own.with_automatic(groups).groups if group.automatic)
    return [group.model_dump(mode="json") for group in automatic]
