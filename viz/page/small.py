"""A small summary of a graph with a picture, as notebooks show it."""

from __future__ import annotations

from html import escape

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.strengths import Strengths, strengths, strongest
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind
from viz.html.document import FONT, GREY, INK
from viz.plot.layout import LayoutNodes, Placement, place_together
from viz.text.words import heading, label, one_line, origin, percent, short

DRAWN, LISTED = 60, 6  # nodes in the picture and beside it
_WIDE, _HIGH = 30.0, 15.0  # units of a small picture
_UNIT = 14.0  # pixels
_LARGEST = 6.0  # radius in pixels
_LETTERS, _LETTER = 10, 5.5  # of a token, and pixels of one
_COLOURS = {NodeKind.FEATURE: "#3b6fb6", NodeKind.ERROR: "#c9ced6", NodeKind.BIAS: "#c9ced6"}
_INPUT, _OUTPUT = "#7a8290", "#b5543c"


def summary_html(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> str:
    """Prompt and targets, the nodes with most influence, and a picture of the strongest part."""
    measured = strengths(graph)
    inner = np.flatnonzero(~graph.nodes.is_kind(*TARGET_KINDS))
    top = inner[strongest(measured.arrived[inner], LISTED)].tolist()
    rows = "".join(
        f"<tr><td style='text-align:right;padding:1px 10px 1px 0'>"
        f"{percent(float(measured.influence[row]))}</td>"
        f"<td style='text-align:left;font-family:monospace;padding:1px 10px 1px 0'>"
        f"{graph.nodes[row]}</td><td style='text-align:left;padding:1px 0'>"
        f"{escape(one_line(annotations.label(graph, row) or label(graph, row)))}</td></tr>"
        for row in top
    )
    return (
        f"<div style='font-family:{FONT};color:{INK};font-size:13px'>"
        f"<div><b>{escape(heading(graph))}</b></div>"
        f"<div style='color:{GREY}'>{escape(origin(graph))} · {len(graph):,} nodes, "
        f"{graph.weights.nnz:,} edges</div>"
        "<div style='display:flex;gap:20px;align-items:center;flex-wrap:wrap'>"
        f"{_picture(graph, measured)}"
        f"<table style='border:0;font-size:inherit'>{rows}</table></div></div>"
    )


def _picture(graph: AttributionGraph, measured: Strengths) -> str:
    """The strongest nodes and the edges between them: tokens below, targets on top."""
    kept = np.sort(strongest(measured.arrived, DRAWN))
    nodes = graph.nodes.take(kept)
    layers = graph.provenance.model.n_layers
    placed = LayoutNodes(nodes, layers, measured.arrived[kept], nodes.pos)
    place = place_together(placed, wide=_WIDE, high=_HIGH)[0]
    width, height = place.width * _UNIT, place.height * _UNIT
    return (
        f"<svg viewBox='0 0 {width:.0f} {height + 6:.0f}' width='{width:.0f}' "
        f"style='max-width:100%' role='img' aria-label='{len(kept)} of {len(graph)} nodes'>"
        f"{_lines(graph, measured, kept, place, height)}"
        f"{_circles(graph, measured, kept, place, height)}"
        f"{_words(graph, measured, kept, place, height)}</svg>"
    )


def _lines(
    graph: AttributionGraph,
    measured: Strengths,
    kept: Int[ndarray, " drawn"],
    place: Placement,
    height: float,
) -> str:
    number = np.full(len(graph), -1)
    number[kept] = np.arange(len(kept))
    source, target = number[measured.source], number[measured.target]
    inside = np.flatnonzero((source >= 0) & (target >= 0) & (measured.carried > 0))
    edges = inside[strongest(measured.carried[inside], 3 * DRAWN)]
    most = float(measured.carried[edges].max(initial=0.0)) or 1.0
    return "".join(
        f"<line x1='{place.x[s] * _UNIT:.1f}' y1='{height - place.y[s] * _UNIT:.1f}' "
        f"x2='{place.x[t] * _UNIT:.1f}' y2='{height - place.y[t] * _UNIT:.1f}' stroke='{INK}' "
        f"stroke-opacity='{0.08 + 0.6 * share:.2f}' stroke-width='{0.5 + 2 * share:.2f}'/>"
        for s, t, share in zip(
            source[edges].tolist(),
            target[edges].tolist(),
            (measured.carried[edges] / most).tolist(),
            strict=True,
        )
    )


def _circles(
    graph: AttributionGraph,
    measured: Strengths,
    kept: Int[ndarray, " drawn"],
    place: Placement,
    height: float,
) -> str:
    most = float(measured.influence.max(initial=0.0)) or 1.0  # targets are no larger
    return "".join(
        f"<circle cx='{x * _UNIT:.1f}' cy='{height - y * _UNIT:.1f}' "
        f"r='{_LARGEST * max(0.3, min(reached / most, 1.0) ** 0.5):.1f}' fill='{_colour(kind)}'>"
        f"<title>{escape(f'{graph.nodes[row]} {one_line(label(graph, row))}')}</title></circle>"
        for row, x, y, reached, kind in zip(
            kept.tolist(),
            place.x.tolist(),
            place.y.tolist(),
            measured.arrived[kept].tolist(),
            graph.nodes.kind[kept].tolist(),
            strict=True,
        )
    )


def _words(
    graph: AttributionGraph,
    measured: Strengths,
    kept: Int[ndarray, " drawn"],
    place: Placement,
    height: float,
) -> str:
    """Drawn tokens of the prompt, below their nodes; of those that overlap the strongest."""
    tokens = np.flatnonzero(graph.nodes.kind[kept] == NodeKind.TOKEN)
    order = tokens[strongest(measured.arrived[kept[tokens]], len(tokens))]
    taken: list[tuple[float, float]] = []
    words: list[str] = []
    for node in order.tolist():
        text = short(graph.token_text(int(graph.nodes.pos[kept[node]])).strip(), _LETTERS)
        x, half = float(place.x[node]) * _UNIT, _LETTER * len(text) / 2
        if all(x + half < left or right < x - half for left, right in taken):
            taken.append((x - half, x + half))
            y = height - float(place.y[node]) * _UNIT + 14
            words.append(
                f"<text x='{x:.1f}' y='{y:.1f}' font-size='9' fill='{GREY}' "
                f"text-anchor='middle'>{escape(text)}</text>"
            )
    return "".join(words)


def _colour(kind: int) -> str:
    if kind in INPUT_KINDS:
        return _INPUT
    return _OUTPUT if kind in TARGET_KINDS else _COLOURS[NodeKind(kind)]
