"""Graphs for other programs: networkx, node-link JSON, GraphML and GEXF.

Nodes are named `str(NodeId)`; edges run from source to target and have a `weight`.  A node has
`kind`, `label` and `influence`, and where they apply `layer`, `pos`, `index`, `activation`,
`value`, `seed`, `group` and `pinned`; attributes that do not apply are left out, since GraphML has
no null and JSON no nan.  These formats are for export only: dropped weights, which features were
expanded, output tokens, descriptions and most of the header are not in them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
from pydantic_core import to_json

from graphs.analysis.influence import influence
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import TARGET_KINDS
from graphs.disk.files import atomic_write
from graphs.formats.labels import node_labels

if TYPE_CHECKING:
    NamedDiGraph = nx.DiGraph[str]
else:  # networkx's own class takes no parameters
    NamedDiGraph = nx.DiGraph

# Characters that XML 1.0 cannot hold even escaped; vocabularies contain tokens with them.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> NamedDiGraph:
    """A graph as a networkx.DiGraph, about 1 kB per edge: prune large graphs first.

    `graph.graph` has `generator`, `model`, `dictionary` and `prompt`.
    """
    header = graph.provenance
    result: NamedDiGraph = nx.DiGraph(
        generator=header.generator,
        model=header.model.name,
        dictionary=header.dictionary.name,
        prompt=header.prompt,
    )
    names = [str(node) for node in graph.nodes]
    for name, attributes in zip(names, _attributes(graph, annotations), strict=True):
        result.add_node(name, **attributes)
    targets: list[int] = edge_targets(graph.weights).tolist()
    sources: list[int] = graph.weights.indices.tolist()
    weights: list[float] = graph.weights.data.tolist()
    for target, source, weight in zip(targets, sources, weights, strict=True):
        result.add_edge(names[source], names[target], weight=weight)
    return result


def write_node_link(
    graph: AttributionGraph, path: Path | str, annotations: Annotations = NO_ANNOTATIONS
) -> None:
    """Write networkx's node-link JSON (`edges="edges"`).  Raises GraphFileError."""
    with atomic_write(path) as temporary:
        data = nx.node_link_data(to_networkx(graph, annotations), edges="edges")
        temporary.write_bytes(to_json(data))


def write_graphml(
    graph: AttributionGraph, path: Path | str, annotations: Annotations = NO_ANNOTATIONS
) -> None:
    """Write GraphML; characters that XML cannot hold become U+FFFD.  Raises GraphFileError."""
    exported = _for_xml(to_networkx(graph, annotations))
    with atomic_write(path) as temporary:
        nx.write_graphml_xml(exported, temporary)


def write_gexf(
    graph: AttributionGraph, path: Path | str, annotations: Annotations = NO_ANNOTATIONS
) -> None:
    """Write GEXF 1.2 for Gephi; the format has no field for model and prompt.

    Characters that XML cannot hold become U+FFFD.  Raises GraphFileError.
    """
    exported = _for_xml(to_networkx(graph, annotations))
    with atomic_write(path) as temporary:
        nx.write_gexf(exported, temporary, version="1.2draft")


def _for_xml(exported: NamedDiGraph) -> NamedDiGraph:
    for attributes in (exported.graph, *(exported.nodes[name] for name in exported)):
        for key, value in attributes.items():
            if isinstance(value, str):
                attributes[key] = _NOT_XML.sub("\ufffd", value)
    return exported


def _attributes(graph: AttributionGraph, annotations: Annotations) -> list[dict[str, Any]]:
    """Attributes of each node; those that do not apply are left out."""
    numbers: dict[str, list[float]] = {
        "activation": graph.nodes.activation.tolist(),
        "value": graph.nodes.value.tolist(),
        "influence": influence(graph).tolist(),
    }
    labels = node_labels(graph, annotations)
    groups = annotations.group_names(graph)
    pinned = set(annotations.pins)
    result: list[dict[str, Any]] = []
    for row, node in enumerate(graph.nodes):
        fields = {"layer": node.layer, "pos": node.pos, "index": node.index}
        known: dict[str, Any] = {n: value for n, value in fields.items() if value is not None}
        known |= {n: column[row] for n, column in numbers.items() if math.isfinite(column[row])}
        if node.kind in TARGET_KINDS:
            known["seed"] = float(graph.seed[row])
        if row in groups:
            known["group"] = groups[row]
        if str(node) in pinned:
            known["pinned"] = True
        result.append({"kind": node.kind.word, "label": labels[row], **known})
    return result
