"""Graphs for other programs: networkx, node-link JSON and GraphML.

Nodes are named `str(NodeId)`, edges run from source to target and carry `weight`.  A node has
`kind`, `label` and `influence`, and where they apply `layer`, `pos`, `index`, `activation`,
`value` and `seed`; what does not apply is left out, since GraphML knows no null and JSON no nan.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
from pydantic_core import to_json

from graphs.files import atomic_write
from graphs.graph import AttributionGraph, edge_targets
from graphs.influence import influence
from graphs.nodes import TARGET_KINDS, NodeKind

if TYPE_CHECKING:
    NamedDiGraph = nx.DiGraph[str]
else:  # networkx's own class takes no parameters
    NamedDiGraph = nx.DiGraph

# What XML 1.0 cannot hold, not even escaped; tokenizers have tokens for such bytes.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_networkx(graph: AttributionGraph) -> NamedDiGraph:
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
    for name, attributes in zip(names, _attributes(graph), strict=True):
        result.add_node(name, **attributes)
    targets: list[int] = edge_targets(graph.weights).tolist()
    sources: list[int] = graph.weights.indices.tolist()
    weights: list[float] = graph.weights.data.tolist()
    for target, source, weight in zip(targets, sources, weights, strict=True):
        result.add_edge(names[source], names[target], weight=weight)
    return result


def write_node_link(graph: AttributionGraph, path: Path | str) -> None:
    """Write networkx's node-link JSON (`edges="edges"`).  Raises GraphFileError."""
    with atomic_write(path) as temporary:
        data = nx.node_link_data(to_networkx(graph), edges="edges")
        temporary.write_bytes(to_json(data))


def write_graphml(graph: AttributionGraph, path: Path | str) -> None:
    """Write GraphML; characters that XML cannot hold become U+FFFD.  Raises GraphFileError."""
    drawn = to_networkx(graph)
    for attributes in (drawn.graph, *(drawn.nodes[name] for name in drawn)):
        for key, value in attributes.items():
            if isinstance(value, str):
                attributes[key] = _NOT_XML.sub("\ufffd", value)
    with atomic_write(path) as temporary:
        nx.write_graphml_xml(drawn, temporary)


def _attributes(graph: AttributionGraph) -> list[dict[str, Any]]:
    """One dictionary per node, without what does not apply."""
    numbers: dict[str, list[float]] = {
        "activation": graph.nodes.activation.tolist(),
        "value": graph.nodes.value.tolist(),
        "influence": influence(graph).tolist(),
    }
    labels = _labels(graph)
    result: list[dict[str, Any]] = []
    for row, node in enumerate(graph.nodes):
        fields = {"layer": node.layer, "pos": node.pos, "index": node.index}
        known = {name: value for name, value in fields.items() if value is not None}
        known |= {n: column[row] for n, column in numbers.items() if math.isfinite(column[row])}
        if node.kind in TARGET_KINDS:
            known["seed"] = float(graph.seed[row])
        result.append({"kind": node.kind.word, "label": labels[row], **known})
    return result


def _labels(graph: AttributionGraph) -> list[str]:
    """What a node says to a reader: its token, target, label or the tokens that it raises."""
    targets = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    labels: list[str] = []
    for row, node in enumerate(graph.nodes):
        if row in targets:
            labels.append(targets[row].text)
        elif node.kind == NodeKind.TOKEN:
            assert node.pos is not None
            labels.append(graph.token_text(node.pos))
        else:
            labels.append(graph.said(row) or str(node))
    return labels
