"""Scene: the nodes, edges and labels of a graph that are drawn, their places and sizes.

Numbers refer to the whole graph, also if only its strongest nodes are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from graphs.analysis.strengths import Strengths, strengths, strongest
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import TARGET_KINDS, NodeKind
from graphs.naming.names import Names
from viz.plot.labels import Label, Marker, labels_above, labels_beside
from viz.plot.layout import HIGH, WIDE, Placement, place
from viz.text.words import mark

MOST_NODES = 3000
MOST_EDGES = 400
MOST_LABELS = 12  # features with a label

_PLOT = (1256.0, 650.0)  # pixels of a small graph, without margins
_LEAST_UNIT = 9.0  # pixels; larger graphs get a larger plot
_LARGEST, _SMALLEST = 18.0, 0.4  # diameter in pixels; smallest relative to largest


@dataclass(frozen=True)
class Scene:
    """A graph with influences, places and the scale of the drawing."""

    graph: AttributionGraph
    strengths: Strengths
    rows: Int[ndarray, " drawn"]  # nodes that are drawn, ascending
    placement: Placement  # of the drawn nodes
    unit: tuple[float, float]  # pixels per unit of the placement, to the right and up
    edges: Int[ndarray, " edge"]  # edges that are drawn, strongest first
    source: Int[ndarray, " edge"]  # index of the source among the drawn nodes
    target: Int[ndarray, " edge"]

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the plot in pixels."""
        return self.placement.width * self.unit[0], self.placement.height * self.unit[1]

    @property
    def diameter(self) -> Float[ndarray, " drawn"]:
        """Diameter of each marker in pixels; its area is linear in the node's influence.

        The most influential node that is not a target is the largest; targets are at most as large.
        """
        largest = min(_LARGEST, self.unit[0] - 1, self.unit[1] - 1)
        most = self.strengths.influence.max(initial=0.0) or 1.0
        part = np.minimum(self.strengths.arrived[self.rows] / most, 1.0)
        return largest * np.sqrt(_SMALLEST**2 + (1 - _SMALLEST**2) * part)

    def output_labels(self) -> list[Label]:
        """Labels above the targets."""
        kinds = self.graph.nodes.is_kind(*TARGET_KINDS)
        return labels_above(self._wanted(np.flatnonzero(kinds[self.rows])), (0.0, 0.0, *self.size))

    def feature_labels(self) -> list[Label]:
        """Labels of the strongest features and heads."""
        inner = self.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.HEAD)
        features = np.flatnonzero(inner[self.rows])
        chosen = strongest(self.strengths.arrived[self.rows[features]], MOST_LABELS)
        x, y, radius = self.pixels()
        boxes = np.stack([x - radius, y - radius, x + radius, y + radius], axis=1)
        return labels_beside(self._wanted(features[chosen]), boxes, (0.0, 0.0, *self.size))

    def _wanted(self, nodes: Int[ndarray, " asked"]) -> list[tuple[Marker, str]]:
        x, y, radius = self.pixels()
        order = nodes[np.argsort(-self.strengths.arrived[self.rows[nodes]], kind="stable")].tolist()
        names = Names(self.graph)
        wanted = [
            (
                Marker(float(x[node]), float(y[node]), float(radius[node])),
                mark(names, int(self.rows[node])),
            )
            for node in order
        ]
        return [(marker, text) for marker, text in wanted if text]

    def pixels(self) -> tuple[Float[ndarray, " drawn"], ...]:
        """Centre and radius of each marker in pixels from the lower left corner."""
        across, up = self.unit
        return self.placement.x * across, self.placement.y * up, self.diameter / 2


def scene(
    graph: AttributionGraph,
    most_nodes: int = MOST_NODES,
    most_edges: int = MOST_EDGES,
    wide: float = WIDE,
    high: float = HIGH,
) -> Scene:
    """The drawn part of a graph: the strongest nodes, and the strongest edges between them.

    A small one is spread over `wide` by `high` units.
    """
    measured = strengths(graph)
    rows = np.sort(strongest(measured.arrived, most_nodes))
    layers = graph.provenance.model.n_layers
    placement = place(graph.nodes.take(rows), layers, measured.arrived[rows], wide, high)
    number = np.full(len(graph), -1)
    number[rows] = np.arange(len(rows))
    source, target = number[measured.source], number[measured.target]
    carried = np.where((source >= 0) & (target >= 0), measured.carried, 0.0)
    edges = strongest(carried, most_edges)
    edges = edges[carried[edges] > 0]
    return Scene(
        graph=graph,
        strengths=measured,
        rows=rows,
        placement=placement,
        unit=(
            max(_LEAST_UNIT, _PLOT[0] / placement.width),
            max(_LEAST_UNIT, _PLOT[1] / placement.height),
        ),
        edges=edges,
        source=source[edges],
        target=target[edges],
    )
