"""Figure: an attribution graph as one plotly figure.

A marker per node: position is token and layer, shape is kind, area is influence.
A line per edge with much influence: colour is sign, opacity and width are rank.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]  # it has none
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.core.graph import AttributionGraph
from viz.html.document import FONT, GREY, INK, PALE, SIDE
from viz.plot.labels import LETTERS, Label, highest, text_width
from viz.plot.layout import BIAS
from viz.plot.markers import MARKERS
from viz.plot.scene import Scene, scene
from viz.text.checked import checks_line
from viz.text.origins import origin
from viz.text.words import counted, heading, hover_lines, short

_RIGHT = 84  # margin in pixels, for texts over the outputs

# Okabe-Ito colours.
_POSITIVE, _NEGATIVE = "#0072B2", "#D55E00"
_SIGNS = ((1, "positive effect", _POSITIVE), (-1, "negative effect", _NEGATIVE))
_STRENGTHS = (  # relative rank, width in pixels, opacity
    (0.1, 1.8, 0.75),
    (0.4, 1.2, 0.38),
    (1.0, 0.8, 0.17),
)
_TITLE, _SMALL, _TICK = 19.0, 12.0, 12.0  # type in pixels
_HEAD = 84  # pixels of title and subtitle
_LEGEND = 40
_POINTS = 20  # of a curve
_BOW, _LARGEST_BOW = 0.06, 2.0  # sideways bend of steep edges, to avoid nodes in their column
_AXIS = {
    "showgrid": False,
    "showline": False,
    "tickmode": "array",
    "ticks": "",
    "zeroline": False,
}


def figure(graph: AttributionGraph) -> go.Figure:
    """A graph as a plotly figure with at most the 3000 strongest nodes."""
    drawn = scene(graph)
    return go.Figure(
        {"data": [*_edge_traces(drawn), *_node_traces(drawn)], "layout": _frame(drawn)}
    )


def _node_traces(drawn: Scene) -> list[dict[str, Any]]:
    kinds, diameter = drawn.graph.nodes.kind[drawn.rows], drawn.diameter
    texts = hover_lines(drawn.graph, drawn.strengths, drawn.rows.tolist())
    traces: list[dict[str, Any]] = []
    for kind, (symbol, fill, outline) in MARKERS.items():
        nodes = np.flatnonzero(kinds == kind)
        if not len(nodes):
            continue
        marker = {
            "symbol": symbol,
            "color": fill,
            "opacity": 1.0,
            "size": diameter[nodes],
            "line": {"color": outline, "width": np.minimum(1.2, diameter[nodes] / 6)},
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": kind.word,
                "x": drawn.placement.x[nodes],
                "y": drawn.placement.y[nodes],
                "customdata": drawn.rows[nodes],
                "hoverinfo": "text",
                "hovertext": [_hover_text(texts[node]) for node in nodes.tolist()],
                "marker": marker,
            }
        )
    return traces


def _edge_traces(drawn: Scene) -> list[dict[str, Any]]:
    """One trace per strength and sign, faint ones first."""
    traces: list[dict[str, Any]] = []
    signs = np.sign(drawn.strengths.share[drawn.edges])
    rank = np.arange(len(signs)) / max(1, len(signs))
    for number, (upto, width, opacity) in reversed([*enumerate(_STRENGTHS)]):
        above = _STRENGTHS[number - 1][0] if number else 0.0
        for sign, name, colour in _SIGNS:
            edges = np.flatnonzero((signs == sign) & (rank >= above) & (rank < upto))
            if not len(edges):
                continue
            x, y = _curves(drawn, edges)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": False,
                    "x": x,
                    "y": y,
                    "hoverinfo": "skip",
                    "opacity": opacity,
                    "line": {"color": colour, "width": width},
                }
            )
    for last in {trace["name"]: trace for trace in traces}.values():
        last["showlegend"] = True  # the strongest of each sign
    return traces


def _curves(
    drawn: Scene, edges: Int[ndarray, " chosen"]
) -> tuple[Float[ndarray, " point"], Float[ndarray, " point"]]:
    """Points of these edges from source to target, with nan after each."""
    source, target = drawn.source[edges][:, None], drawn.target[edges][:, None]
    x, y = drawn.placement.x, drawn.placement.y
    across, up = x[target] - x[source], y[target] - y[source]
    part = np.append(np.linspace(0.0, 1.0, _POINTS), np.nan)
    eased = part * (1 + part * (3 - 2 * part)) / 2  # steeper at both ends
    bow = np.minimum(_BOW * up, _LARGEST_BOW) * np.exp(-abs(across) / 4)
    curve = x[source] + across * eased + bow * 4 * part * (1 - part)
    return curve.ravel(), (y[source] + up * part).ravel()


def _frame(drawn: Scene) -> dict[str, Any]:
    """The figure's layout: title, axes, margins, annotations."""
    width, height = drawn.size
    names, angle, below = _token_names(drawn)
    above = drawn.output_labels()
    lines = _subtitle(drawn)
    top = _HEAD + 16 * (len(lines) - 2)
    # Labels above the outputs must lie within the axes: plotly drops others.
    height, width = max(height, highest(above)), width + _RIGHT
    bottom = below + _LEGEND
    small = {"family": FONT, "size": _SMALL, "color": INK}
    return {
        "template": "none",
        "width": round(SIDE + width),
        "height": round(top + height + bottom),
        "margin": {"l": SIDE, "r": 0, "t": top, "b": bottom, "autoexpand": False},
        "font": small,
        "title": _title(drawn, lines),
        "hovermode": "closest",
        "hoverdistance": 12,
        "hoverlabel": {"align": "left", "bgcolor": "white", "bordercolor": GREY, "font": small},
        "legend": {
            "orientation": "h",
            "itemsizing": "constant",
            "x": 0,
            "y": 0,
            "yref": "container",
            "yanchor": "bottom",
        },
        **_axes(drawn, width, height, names, angle),
        "shapes": _separators(drawn),
        "annotations": [_annotation(drawn, label) for label in [*above, *drawn.feature_labels()]],
    }


def _axes(
    drawn: Scene, width: float, height: float, names: list[str], angle: int
) -> dict[str, Any]:
    """Axes of this size in pixels, with tokens below and layers at the left."""
    return {
        "xaxis": {
            **_AXIS,
            "range": [0, width / drawn.unit[0]],
            "tickangle": angle,
            "tickvals": drawn.placement.column_x,
            "ticktext": names,
        },
        "yaxis": {
            **_AXIS,
            "range": [0, height / drawn.unit[1]],
            "tickvals": drawn.placement.row_y,
            "ticktext": drawn.placement.rows,
            "title": {"text": "layer", "standoff": 6},
        },
    }


def _title(drawn: Scene, lines: list[str]) -> dict[str, Any]:
    return {
        "text": f"<b>{markup(heading(drawn.graph))}</b>",
        "font": {"size": _TITLE},
        "x": 0,
        "xref": "paper",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "pad": {"t": 18},
        "subtitle": {"text": "<br>".join(lines), "font": {"size": _SMALL, "color": GREY}},
    }


def _subtitle(drawn: Scene) -> list[str]:
    graph = drawn.graph
    counts = [
        origin(graph),
        counted(len(drawn.rows), len(graph), "node"),
        counted(len(drawn.edges), graph.weights.nnz, "edge"),
    ]
    missing = len(graph.provenance.tokens) - int(np.sum(drawn.placement.columns != BIAS))
    if missing:
        counts.append(f"{counted(missing, missing, 'position')} without nodes left out")
    checks = graph.provenance.checks
    failures = [
        f'<b><span style="color:{_NEGATIVE}">{markup(f)}</span></b>'
        for f in graph.provenance.failures
    ]
    return [markup(" · ".join(counts)), markup(checks_line(checks)), *failures]


def _token_names(drawn: Scene) -> tuple[list[str], int, int]:
    """Tick labels, their angle, and their height below the plot in pixels."""
    names = [
        "bias" if pos == BIAS else short(drawn.graph.token_text(pos), 14)
        for pos in drawn.placement.columns.tolist()
    ]
    widths = np.array([text_width(name, _TICK) for name in names])
    room = drawn.placement.column_width * drawn.unit[0]
    level = bool(np.all(widths + 6 <= room))
    below = 26 if level else 22 + round(float(widths.max()) * 0.71)
    return [markup(name) for name in names], 0 if level else -45, below


def _separators(drawn: Scene) -> list[dict[str, Any]]:
    """Pale lines between columns."""
    return [
        {
            "type": "line",
            "layer": "below",
            "x0": x,
            "x1": x,
            "y0": 0,
            "y1": drawn.placement.height,
            "line": {"color": PALE, "width": 1},
        }
        for x in np.cumsum(drawn.placement.column_width)[:-1].tolist()
    ]


def _annotation(drawn: Scene, label: Label) -> dict[str, Any]:
    return {
        "x": label.x / drawn.unit[0],
        "y": label.y / drawn.unit[1],
        "text": markup(label.text),
        "textangle": -label.angle,
        "showarrow": False,
        "font": {"size": LETTERS},
        "bgcolor": "rgba(255, 255, 255, 0.8)",
        "borderpad": 0,
    }


def _hover_text(lines: list[str]) -> str:
    first, *others = map(markup, lines)
    return "<br>".join([f"<b>{first}</b>", *others])


def markup(text: str) -> str:
    """Plain text as plotly's pseudo-HTML."""
    return escape(text, quote=False)
