"""A figure of what an intervention did: each group and target before and after."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

import viz
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph
from graphs.groups.overview import Box, BoxKind, graph_overview
from graphs.interventions.activity import activations_after, is_removed, kept_activity
from graphs.interventions.changes import Intervention
from viz.paper.together import Mark
from viz.text.words import one_line


def intervention_figure(
    graph: AttributionGraph,
    annotations: Annotations,
    intervention: Intervention,
    measured: Float[ndarray, " node"],  # change of each node's value
    through: int,  # last block that was held
    width: str = "column",
) -> viz.PaperFigure:
    """The figure of a graph with what was measured below the names of its boxes, in percent.

    Of groups it is how active they are, of targets their value on the prompt; boxes of which all
    members were set to zero are crossed out.
    """
    shown = graph_overview(graph, annotations)
    after = activations_after(graph, intervention, measured, through)

    def left(box: Box) -> float | None:
        if box.kind == BoxKind.GROUP:
            return kept_activity(graph, box.rows, after)
        if box.kind != BoxKind.TARGET or len(box.rows) > 1:
            return None
        row = int(box.rows[0])
        value, change = float(graph.nodes.value[row]), float(measured[row])
        return (value + change) / value if value > 0 and np.isfinite(change) else None

    marks = {
        number: Mark(_note(share), removed)
        for number, box in enumerate(shown.boxes)
        for share, removed in [(left(box), is_removed(graph, box.rows, intervention))]
    }
    what = one_line(intervention.what)
    sentence = f"Activity of groups and value of targets with {what}, in % of what they were."
    return viz.overview_figure(graph, shown, width, marks, sentence)


def _note(share: float | None) -> str:
    """Before and after in whole percent, with a real minus sign; empty if unknown.

    >>> _note(0.124), _note(-0.05), _note(0.998), _note(None)
    ('100% → 12%', '100% → −5%', '100%', '')
    """
    if share is None:
        return ""
    after = f"{100 * share:.0f}%".replace("-0%", "0%").replace("-", "−")
    return after if after == "100%" else f"100% → {after}"
