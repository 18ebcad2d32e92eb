"""Labels of nodes in other programs' files and in tables."""

from __future__ import annotations

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.naming.names import Names

_NAMED_AS_THEY_ARE = (NodeKind.POSITION, NodeKind.BIAS, NodeKind.ERROR)


def node_labels(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> list[str]:
    """Label of each node: a person's, its token or target text, what its feature stands for."""
    names = Names(graph, annotations)
    return [
        str(node) if node.kind in _NAMED_AS_THEY_ARE else names.label(row) or str(node)
        for row, node in enumerate(graph.nodes)
    ]
