"""A small summary of a graph with a picture, as notebooks show it."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.strengths import strengths, strongest
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.naming.names import Names
from viz.html.document import FONT, GREY, INK
from viz.plot.markers import MARKERS
from viz.plot.scene import Scene, scene
from viz.text.origins import origin
from viz.text.words import heading, label, one_line, percent, short

DRAWN, LISTED = 60, 6  # nodes in the picture and beside it
_WIDE, _HIGH = 30.0, 15.0  # units of a small picture
_UNIT = 14.0  # pixels
_LETTERS, _LETTER = 10, 5.5  # of a token, and pixels of one


def summary_html(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> str:
    """Prompt and targets, the nodes with most influence, and a picture of the strongest part."""
    measured = strengths(graph)
    inner = np.flatnonzero(~graph.nodes.is_kind(*TARGET_KINDS))
    top = inner[strongest(measured.arrived[inner], LISTED)].tolist()
    names = Names(graph, annotations)
    rows = "".join(
        f"<tr><td style='text-align:right;padding:1px 10px 1px 0'>"
        f"{percent(float(measured.influence[row]))}</td>"
        f"<td style='text-align:left;font-family:monospace;padding:1px 10px 1px 0'>"
        f"{graph.nodes[row]}</td><td style='text-align:left;padding:1px 0'>"
        f"{escape(one_line(label(names, row)))}</td></tr>"
        for row in top
    )
    return (
        f"<div style='font-family:{FONT};color:{INK};font-size:13px'>"
        f"<div><b>{escape(heading(graph))}</b></div>"
        f"<div style='color:{GREY}'>{escape(origin(graph))} · {len(graph):,} nodes, "
        f"{graph.weights.nnz:,} edges</div>"
        "<div style='display:flex;gap:20px;align-items:center;flex-wrap:wrap'>"
        f"{_picture(graph)}"
        f"<table style='border:0;font-size:inherit'>{rows}</table></div></div>"
    )


def _picture(graph: AttributionGraph) -> str:
    """The strongest nodes and the edges between them: tokens below, targets on top."""
    drawn = replace(scene(graph, DRAWN, 3 * DRAWN, _WIDE, _HIGH), unit=(_UNIT, _UNIT))
    width, height = drawn.size
    x, up, radius = drawn.pixels()
    y = height - up
    return (
        f"<svg viewBox='0 0 {width:.0f} {height + 6:.0f}' width='{width:.0f}' "
        f"style='max-width:100%' role='img' aria-label='{len(drawn.rows)} of {len(graph)} nodes'>"
        f"{_lines(drawn, x, y)}{_circles(drawn, x, y, radius)}{_words(drawn, x, y)}</svg>"
    )


def _lines(drawn: Scene, x: Float[ndarray, " drawn"], y: Float[ndarray, " drawn"]) -> str:
    carried = drawn.strengths.carried[drawn.edges]
    shares = carried / (float(carried.max(initial=0.0)) or 1.0)
    return "".join(
        f"<line x1='{x[source]:.1f}' y1='{y[source]:.1f}' x2='{x[target]:.1f}' "
        f"y2='{y[target]:.1f}' stroke='{INK}' stroke-opacity='{0.08 + 0.6 * share:.2f}' "
        f"stroke-width='{0.5 + 2 * share:.2f}'/>"
        for source, target, share in zip(drawn.source, drawn.target, shares, strict=True)
    )


def _circles(
    drawn: Scene,
    x: Float[ndarray, " drawn"],
    y: Float[ndarray, " drawn"],
    radius: Float[ndarray, " drawn"],
) -> str:
    names, circles = Names(drawn.graph), list[str]()
    for place, row in enumerate(drawn.rows.tolist()):
        _, fill, outline = MARKERS[drawn.graph.nodes[row].kind]
        title = escape(f"{drawn.graph.nodes[row]} {one_line(label(names, row))}")
        circles.append(
            f"<circle cx='{x[place]:.1f}' cy='{y[place]:.1f}' r='{radius[place]:.1f}' "
            f"fill='{fill}' stroke='{outline}'><title>{title}</title></circle>"
        )
    return "".join(circles)


def _words(drawn: Scene, x: Float[ndarray, " drawn"], y: Float[ndarray, " drawn"]) -> str:
    """Drawn tokens of the prompt, below their nodes; of those that overlap the strongest."""
    tokens = np.flatnonzero(drawn.graph.nodes.kind[drawn.rows] == NodeKind.TOKEN)
    order = tokens[strongest(drawn.strengths.arrived[drawn.rows[tokens]], len(tokens))]
    taken: list[tuple[float, float]] = []
    words: list[str] = []
    for place in order.tolist():
        token = drawn.graph.token_text(int(drawn.graph.nodes.pos[drawn.rows[place]]))
        text = short(token.strip(), _LETTERS)
        left, right = (float(x[place]) + side * _LETTER * len(text) / 2 for side in (-1, 1))
        if all(right < other or end < left for other, end in taken):
            taken.append((left, right))
            words.append(
                f"<text x='{x[place]:.1f}' y='{y[place] + 14:.1f}' font-size='9' fill='{GREY}' "
                f"text-anchor='middle'>{escape(text)}</text>"
            )
    return "".join(words)
