"""Graphs in DOT, the language of Graphviz: layers from bottom to top, for `dot -Tsvg`.

The shape of a node is its kind, the width of its outline its influence; supernodes are clusters.
The width of an edge is its share of its target's inputs; edges with a negative effect are red and
dashed.

Source: https://graphviz.org/doc/info/lang.html
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphs.analysis.influence import influence
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets, row_sizes
from graphs.core.nodes import NodeKind
from graphs.disk.files import atomic_write
from graphs.formats.labels import node_labels

_SHAPES = {
    NodeKind.TOKEN: "box",
    NodeKind.POSITION: "box",
    NodeKind.BIAS: "triangle",
    NodeKind.FEATURE: "ellipse",
    NodeKind.ERROR: "diamond",
    NodeKind.LOGIT: "box",
    NodeKind.TARGET: "box",
    NodeKind.HEAD: "invtriangle",
}
_THICKEST = 6.0  # points, of a line


def write_dot(
    graph: AttributionGraph, path: Path | str, annotations: Annotations = NO_ANNOTATIONS
) -> None:
    """Write a graph as DOT.  Raises GraphFileError if the file cannot be written."""
    with atomic_write(path) as temporary:
        temporary.write_text(to_dot(graph, annotations), encoding="utf-8", newline="\n")


def to_dot(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> str:
    """A graph as DOT text: one line per node and per edge, nodes named `str(NodeId)`."""
    lines = [
        f"digraph {_quoted(graph.provenance.prompt)} {{",
        '  rankdir=BT; node [fontname="sans-serif"]; edge [arrowsize=0.5];',
        *_nodes(graph, annotations),
    ]
    for number, (name, rows) in enumerate(annotations.rows(graph).items()):
        members = " ".join(_quoted(str(graph.nodes[int(row)])) + ";" for row in rows)
        lines.append(f"  subgraph cluster_{number} {{ label={_quoted(name)}; {members} }}")
    return "\n".join([*lines, *_edges(graph), "}"]) + "\n"


def _nodes(graph: AttributionGraph, annotations: Annotations) -> list[str]:
    labels, pinned = node_labels(graph, annotations), set(annotations.pins)
    shares = influence(graph)
    widths = 1 + (_THICKEST - 1) * shares / max(float(shares.max(initial=0.0)), 1e-300)
    lines: list[str] = []
    for node, label, width in zip(graph.nodes, labels, widths.tolist(), strict=True):
        style = ' style="bold"' if str(node) in pinned else ""
        lines.append(
            f"  {_quoted(str(node))} [label={_quoted(label)} tooltip={_quoted(str(node))} "
            f"shape={_SHAPES[node.kind]} penwidth={width:.2f}{style}];"
        )
    return lines


def _edges(graph: AttributionGraph) -> list[str]:
    names = [_quoted(str(node)) for node in graph.nodes]
    targets, totals = edge_targets(graph.weights), row_sizes(graph.weights) + graph.dropped_absolute
    sizes = np.abs(graph.weights.data, dtype=np.float64)
    shares = sizes / np.where(totals > 0, totals, 1.0)[targets]
    widths = 0.3 + (_THICKEST - 0.3) * shares
    lines: list[str] = []
    for target, source, weight, width in zip(
        targets.tolist(),
        graph.weights.indices.tolist(),
        graph.weights.data.tolist(),
        widths.tolist(),
        strict=True,
    ):
        sign = " color=red style=dashed" if weight < 0 else ""
        lines.append(
            f"  {names[source]} -> {names[target]} [weight={max(1, round(100 * abs(width)))} "
            f"penwidth={width:.2f} effect={_quoted(repr(weight))}{sign}];"
        )
    return lines


def _quoted(text: str) -> str:
    """A quoted DOT string, with backslashes, quotes and line breaks escaped."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\0", "\ufffd")
    return '"' + plain.replace("\n", "\\n").replace("\r", "\\r") + '"'
