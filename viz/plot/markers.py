"""Markers of nodes by kind, distinguishable for colour-blind readers: Okabe-Ito, and a violet."""

from __future__ import annotations

from graphs.core.nodes import NodeKind

MARKERS = {  # symbol, fill, outline
    NodeKind.TOKEN: ("square", "#009E73", "white"),
    NodeKind.POSITION: ("square-open", "#009E73", "#009E73"),
    NodeKind.BIAS: ("triangle-up", "#7d8590", "#7d8590"),
    NodeKind.FEATURE: ("circle", "#2b3242", "white"),
    NodeKind.ERROR: ("diamond", "white", "#7d8590"),
    NodeKind.LOGIT: ("star", "#CC79A7", "#CC79A7"),
    NodeKind.TARGET: ("hexagon", "#CC79A7", "#CC79A7"),
    NodeKind.HEAD: ("triangle-down", "#6f4fb0", "white"),
}
