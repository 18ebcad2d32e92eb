"""Figures of a comparison: influence by depth, concepts of both graphs, scores and nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]  # it has none
from jaxtyping import Float
from numpy import ndarray

from graphs.analysis.influence import influence_shares
from graphs.comparison.compare import Score
from graphs.comparison.concepts import Appearance, Concept
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from viz.html.document import FONT, GREY, INK, PALE
from viz.text.words import short, visible

FIRST, SECOND, _ONLY = "#0072B2", "#D55E00", "#b8bec7"  # Okabe-Ito colours, and a grey
_WIDTH = 1100
_LONGEST = 40  # characters of a concept


def depth_profile(
    sides: Sequence[AttributionGraph | Sequence[AttributionGraph]], names: Sequence[str]
) -> go.Figure:
    """Share of influence at the features of each layer, by relative depth.

    A side is one graph, or the graphs of one model on several prompts, which are averaged.
    """
    drawn: Any = go.Figure()  # plotly's types are incomplete
    styles = zip((FIRST, SECOND), ("circle", "square"), ("solid", "dash"), strict=True)
    for side, name, (colour, symbol, dash) in zip(sides, names, styles, strict=False):
        graphs = [side] if isinstance(side, AttributionGraph) else side
        arrived = np.mean([_by_layer(graph) for graph in graphs], axis=0)
        layers = np.arange(len(arrived))
        drawn.add_scatter(
            x=layers / max(1, len(layers) - 1),
            y=arrived,
            mode="lines+markers",
            name=escape(visible(name)),
            line={"color": colour, "dash": dash},
            marker={"symbol": symbol, "size": 8},
            cliponaxis=False,
            customdata=layers,
            hovertemplate="layer %{customdata}<br>%{y:.1%} of influence<extra></extra>",
        )
    drawn.update_xaxes(title="depth, from the first layer to the last", range=[-0.03, 1.03])
    drawn.update_yaxes(title="influence at features", tickformat=".0%", rangemode="tozero")
    return _styled(drawn, "Influence by depth", 360)


def matched_flow(concepts: Sequence[Concept], names: Sequence[str]) -> go.Figure:
    """Concepts of one graph on the left, of the other on the right, shared influence between."""
    title = escape(f"Concepts of {visible(names[0])} (left) and of {visible(names[1])} (right)")
    if not concepts:
        return _empty(title, "Neither graph has concepts.")
    sides = ([c.first for c in concepts], [c.second for c in concepts])
    places: list[Appearance] = [side for column in sides for side in column if side is not None]
    ones = [place for place, concept in enumerate(concepts) if concept.first is not None]
    others = [place for place, concept in enumerate(concepts) if concept.second is not None]
    left = {concept: row for row, concept in enumerate(ones)}
    right = {concept: len(ones) + row for row, concept in enumerate(others)}
    links = [
        (left[place], right[place], concept.shared)
        for place, concept in enumerate(concepts)
        if concept.first is not None and concept.second is not None
    ]
    paired = {end for one, other, _ in links for end in (one, other)}
    colours = [
        (FIRST if row < len(ones) else SECOND) if row in paired else _ONLY
        for row in range(len(places))
    ]
    # Unpaired concepts flow into an invisible node, so that their bars have the right size.
    invisible = len(places)
    alone = [
        (row, invisible) if row < len(ones) else (invisible, row) for row in range(len(places))
    ]
    alone = [pair for row, pair in enumerate(alone) if row not in paired]
    sizes = [places[min(pair)].influence for pair in alone]
    drawn: Any = go.Figure(
        go.Sankey(
            arrangement="snap",
            node={
                "label": [escape(short(side.name, _LONGEST)) for side in places] + [""],
                "color": [*colours, "rgba(0,0,0,0)"],
                "pad": 14,
                "thickness": 14,
                "line": {"width": 0},
                "customdata": [_hover(side) for side in places] + ["no counterpart"],
                "hovertemplate": "%{customdata}<extra></extra>",
            },
            link={
                "source": [one for one, _, _ in links] + [one for one, _ in alone],
                "target": [other for _, other, _ in links] + [other for _, other in alone],
                "value": [shared for _, _, shared in links] + sizes,
                "color": ["rgba(98,106,118,0.35)"] * len(links)
                + ["rgba(184,190,199,0.12)"] * len(alone),
                "hovertemplate": "%{value:.1%} of influence<extra></extra>",
            },
        )
    )
    return _styled(drawn, title, 140 + 34 * max(len(ones), len(others), 3))


def scores_with_null(scores: Mapping[str, Score]) -> go.Figure:
    """Each score as a large mark, and the draws of its null as small ones."""
    drawn: Any = go.Figure()  # plotly's types are incomplete
    known = {name: score for name, score in scores.items() if not np.isnan(score.value)}
    null = [(name, value) for name, score in known.items() for value in score.null]
    drawn.add_scatter(
        x=[value for _, value in null],
        y=[escape(name) for name, _ in null],
        mode="markers",
        name="null",
        marker={"color": GREY, "size": 6, "opacity": 0.3, "symbol": "line-ns-open"},
        hovertemplate="null: %{x:.3f}<extra></extra>",
    )
    drawn.add_scatter(
        x=[score.value for score in known.values()],
        y=list(map(escape, known)),
        mode="markers",
        name="score",
        marker={"color": SECOND, "size": 11, "symbol": "diamond"},
        customdata=[score.p_value for score in known.values()],
        hovertemplate="%{x:.3f}, p = %{customdata:.3f}<extra></extra>",
    )
    drawn.update_yaxes(autorange="reversed", type="category")
    drawn.update_xaxes(zeroline=True, zerolinecolor=PALE)
    return _styled(drawn, "Scores and their nulls", 140 + 34 * max(1, len(known)))


def _empty(title: str, reason: str) -> go.Figure:
    """An empty figure with the reason as text: plotly fails on a Sankey diagram without bars."""
    drawn: Any = go.Figure()
    drawn.add_annotation(text=reason, showarrow=False, font={"color": GREY})
    drawn.update_xaxes(visible=False)
    drawn.update_yaxes(visible=False)
    return _styled(drawn, title, 180)


def _by_layer(graph: AttributionGraph) -> Float[ndarray, " layer"]:
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    return np.bincount(
        graph.nodes.layer[rows],
        weights=influence_shares(graph)[rows],
        minlength=graph.provenance.model.n_layers,
    )


def _hover(side: Appearance) -> str:
    return (
        f"{escape(visible(side.name))}<br>{side.features:,} features, {side.influence:.1%} of "
        f"influence, depth {side.depth:.2f}"
    )


def _styled(drawn: Any, title: str, height: int) -> go.Figure:
    drawn.update_layout(
        title={"text": title, "font": {"size": 16}, "x": 0, "xref": "paper"},
        font={"family": FONT, "color": INK, "size": 13},
        width=_WIDTH,
        height=height,
        plot_bgcolor="white",
        paper_bgcolor="white",
        margin={"l": 64, "r": 64, "t": 56, "b": 56},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )
    drawn.update_xaxes(gridcolor=PALE, automargin=True)
    drawn.update_yaxes(gridcolor=PALE, automargin=True)
    return drawn
