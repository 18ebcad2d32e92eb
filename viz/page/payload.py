"""Payload: the data of a page about a graph.

Numbers are columns; texts are made visible here, so that the page can show them as they are.  Nodes
are in the graph's order; edges are sorted by influence, strongest first, with source and target as
indices among the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.prune import DEFAULTS
from graphs.analysis.scores import scores
from graphs.core.annotations import NO_ANNOTATIONS, Annotations, annotations_path, graph_digest
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, Description, NodeKind
from graphs.formats.neuronpedia.pages import feature_page
from graphs.groups.overview import Overview
from graphs.naming.names import Names
from graphs.reports.summary import weight_remarks
from viz.html.columns import as_bytes, columns
from viz.page.attention import attention_data, attention_remarks
from viz.page.keys import dictionary_key
from viz.page.overview import overview_data, suggested_groups
from viz.page.part import Part
from viz.page.stable import stability_data
from viz.page.whole import whole_grid
from viz.plot.layout import LayoutNodes, Placement, place_together
from viz.text.checked import header_lines
from viz.text.origins import origin, origins
from viz.text.words import heading, label, mark, visible

_LEVELS = (
    0.3,
    0.5,
    0.65,
    DEFAULTS.node_threshold,
    0.95,
)  # thresholds up to which nodes have a layout
_MOST_AT_FIRST = 400  # nodes
_WIDE, _HIGH = 52.0, 20.0  # units that a small graph is spread over; few, so that markers are large
_ROOM = 2_850_000  # bytes per graph before compression; what weak features have is left out first


def graph_data(
    part: Part,
    levels: Sequence[tuple[Int[ndarray, " _in"], Placement]],
    annotations: Annotations = NO_ANNOTATIONS,
    file: str | None = None,
    overview: Overview | None = None,
) -> dict[str, Any]:
    """Data of a graph; `levels` are growing sets of the part's nodes with their layouts.

    `file` is the name of the graph's own file, if the page knows it; without an overview the page
    opens on the full graph.
    """
    graph, header = part.graph, part.graph.provenance
    whole = scores(graph)
    attention = attention_data(part)
    partial = len(part.rows) < part.n_nodes or _influence_held(part) < 1.0
    data: dict[str, Any] = {
        "heading": heading(graph),
        "origin": origin(graph),
        "origins": origins(graph),
        "key": graph_digest(graph),
        "file": None if file is None else {"graph": file, "notes": annotations_path(file).name},
        "dictionary": dictionary_key(graph),
        "tokens": [visible(token) for token in header.tokens],
        "nLayers": header.model.n_layers,
        "remarks": _remarks(part) + attention_remarks(part, attention),
        "exact": {"nodes": part.exact_nodes, "edges": part.exact_edges},
        "partial": partial,
        "whole": whole_grid(part) if partial else None,
        "checks": [vars(line) for line in header_lines(header)],
        "failures": list(header.failures),
        "scores": {"replacement": whole.replacement, "completeness": whole.completeness},
        "defaults": _opening(part),
        "featurePage": feature_page(header),
        "nodes": _nodes(part),
        "edges": _edges(part),
        "stability": stability_data(part),
        "attention": attention,
        "differences": columns(targets=part.whole.astype(np.int32), sizes=part.differences.ravel()),
        "levels": [level_data(part, rows, placement) for rows, placement in levels],
        "measured": [line.model_dump() for line in header.measured],
        "annotations": annotations.model_dump(mode="json"),
        "overview": None if overview is None else overview_data(part, overview),
        "suggested": [] if overview is None else suggested_groups(part, overview, annotations),
    }
    features, without = _features(part, _ROOM - len(as_bytes(data)))
    if without:
        data["remarks"].append(
            f"Examples of {without:,} weak features are not included in this page."
        )
    return {**data, "features": features}


def placed(part: Part) -> list[tuple[Int[ndarray, " _in"], Placement]]:
    """Layouts of a graph that is shown alone."""
    own = part.graph.nodes.pos[part.rows]
    return [(rows, placements[0]) for (rows,), placements in placed_together((part, own))]


def placed_together(
    *parts: tuple[Part, Int[ndarray, " _kept"]],
) -> list[tuple[tuple[Int[ndarray, " _in"], ...], tuple[Placement, ...]]]:
    """Nodes of each part and their places, for each level; columns are given and common."""
    found: list[tuple[tuple[Int[ndarray, " _in"], ...], tuple[Placement, ...]]] = []
    for upto in (*_LEVELS, np.inf):
        chosen = tuple(np.flatnonzero(_reached(part, upto)) for part, _ in parts)
        if found and all(map(np.array_equal, found[-1][0], chosen)):
            continue
        nodes = [
            LayoutNodes(
                part.graph.nodes.take(part.rows[rows]),
                part.graph.provenance.model.n_layers,
                part.strengths.arrived[part.rows[rows]],
                columns[rows],
            )
            for (part, columns), rows in zip(parts, chosen, strict=True)
        ]
        found.append((chosen, place_together(*nodes, wide=_WIDE, high=_HIGH)))
    return found


def _opening(part: Part) -> dict[str, float]:
    """Initial thresholds of the page: those of pruning, with fewer nodes of a large graph.

    A graph that is pruned already is shown as it is.
    """
    if part.graph.is_part:
        return {"nodes": 1.0, "edges": 1.0}
    before = np.sort(part.node_before)
    nodes = DEFAULTS.node_threshold
    if len(before) > _MOST_AT_FIRST and before[_MOST_AT_FIRST] < nodes:
        nodes = max(0.05, float(np.floor(before[_MOST_AT_FIRST] / 0.05) * 0.05))
    return {"nodes": nodes, "edges": DEFAULTS.edge_threshold}


def _reached(part: Part, upto: float) -> ndarray:
    always = part.graph.nodes.is_kind(NodeKind.TOKEN, NodeKind.POSITION, *TARGET_KINDS)
    return (part.node_before < upto) | always[part.rows]


def _remarks(part: Part) -> list[str]:
    remarks = list(weight_remarks(part.graph))
    if len(part.rows) < part.n_nodes:
        remarks.append(
            f"This page contains the {len(part.rows):,} strongest of {part.n_nodes:,} nodes."
        )
    if len(part.edges) < part.n_edges:
        remarks.append(
            f"Of {part.n_edges:,} edges it contains {len(part.edges):,}, the strongest and those "
            f"to predictions, with {_influence_held(part):.1%} of the influence along edges."
        )
    targets = len(part.graph.target_rows())
    if len(part.whole) < targets and len(part.edges) < part.n_edges:
        remarks.append(
            f"The {len(part.whole):,} most probable of {targets:,} predictions have all inputs "
            "from these nodes; differences of others lack weak inputs."
        )
    return remarks


def _influence_held(part: Part) -> float:
    """Share of the influence along all edges that is along the part's edges."""
    influence = part.strengths.carried
    held = np.zeros(len(influence), dtype=bool)
    held[part.edges] = True
    if not np.any(influence[~held] > 0):
        return 1.0
    return float(influence[held].sum() / influence.sum())


def _nodes(part: Part) -> dict[str, Any]:
    graph, rows = part.graph, part.rows
    nodes = graph.nodes.take(rows)
    totals = graph.row_totals()
    seed = graph.seed / (float(graph.seed.sum()) or 1.0)
    numbers: list[int] = rows.tolist()
    names = Names(graph)
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
        "labels": [label(names, row) for row in numbers],
        "marks": [mark(names, row) for row in numbers],
    }


def _frequency(graph: AttributionGraph, row: int) -> float:
    """Share of tokens on which a feature is active; nan if unknown."""
    description = graph.description(row)
    known = None if description is None else description.frequency
    return np.nan if known is None else known


def _edges(part: Part) -> dict[str, Any]:
    small = np.uint16 if len(part.rows) <= 2**16 else np.int32
    return columns(
        source=part.source.astype(small),
        target=part.target.astype(small),
        share=part.strengths.share[part.edges].astype(np.float32),
        before=part.edge_before.astype(np.float32),
    )


def level_data(part: Part, rows: Int[ndarray, " _in"], placement: Placement) -> dict[str, Any]:
    """Data of a layout of these nodes."""
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
    """Descriptions of features up to `room` characters, strongest first; how many lack examples."""
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
        for version in (description, brief):
            data = _described(version)
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
        "said": [visible(token) for token in description.promoted_at_own_layer],
        "raised": [visible(token) for token in description.promoted],
        "lowered": [visible(token) for token in description.suppressed],
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
