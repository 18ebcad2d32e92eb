"""Labels of nodes in other programs' files and in tables."""

from __future__ import annotations

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind


def node_labels(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> list[str]:
    """Label of each node: a person's, else its token, target text, description or output tokens."""
    targets = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    labels: list[str] = []
    for row, node in enumerate(graph.nodes):
        own = annotations.label(graph, row)
        if own:
            labels.append(own)
        elif row in targets:
            labels.append(targets[row].text)
        elif node.kind == NodeKind.TOKEN:
            assert node.pos is not None
            labels.append(graph.token_text(node.pos))
        elif node.kind == NodeKind.HEAD:
            labels.append(f"head {node.layer}.{node.index}")
        else:
            labels.append(graph.label(row) or str(node))
    return labels
