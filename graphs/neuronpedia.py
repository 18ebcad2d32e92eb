"""Writing the JSON of circuit-tracer and Neuronpedia.

`influence` is `cumulative_influence`, token_prob is the seed, clerp of a feature is the tokens
that it raises most.  What the format has no field for is under the extra key `headwater`, so
that our own files come back as they were.

Their names of nodes are in `graphs.neuronpedia_schema`.  Source of the demands on slug, scan and
clerp: Neuronpedia's graph-schema.json and upload page.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json

from graphs.files import atomic_write
from graphs.graph import AttributionGraph, edge_targets
from graphs.neuronpedia_schema import (
    FEATURE_TYPES,
    Extra,
    GraphFile,
    Link,
    Metadata,
    Node,
    feature_number,
    spelled,
)
from graphs.nodes import TARGET_KINDS
from graphs.provenance import DictionaryIdentity, ModelIdentity, Provenance
from graphs.prune import cumulative_influence


def to_neuronpedia(
    graph: AttributionGraph,
    *,
    slug: str,
    scan: str | None = None,
    node_threshold: float | None = None,
) -> dict[str, Any]:
    """A graph as the JSON of circuit-tracer and Neuronpedia, schema_version 1.

    slug and scan (by default the last part of the model's name) may have letters, digits and
    `_.-` only: anything else becomes `-`.  node_threshold is where the viewer's slider starts;
    it hides nodes whose `influence` is higher, so give 1 to show a pruned graph in full.
    Raises ValueError for an empty slug or scan or for an infinite activation.
    """
    header = graph.provenance
    file = GraphFile(
        metadata=Metadata(
            slug=_allowed(slug),
            scan=_allowed(scan if scan is not None else header.model.name.rpartition("/")[2]),
            prompt_tokens=list(header.tokens),
            prompt=header.prompt,
            node_threshold=node_threshold,
            schema_version=1,
            info=_info(header),
            generation_settings={k: v for k, v in header.settings.items() if k != "prune"},
            pruning_settings=_pruning(header),
        ),
        qParams={
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        nodes=_nodes(graph),
        links=_links(graph),
        headwater=_extra(graph).model_dump(mode="json"),
    )
    return file.model_dump(mode="json")


def write_neuronpedia(
    graph: AttributionGraph,
    path: Path | str,
    *,
    slug: str,
    scan: str | None = None,
    node_threshold: float | None = None,
) -> None:
    """Write `to_neuronpedia` to a file, whole or not at all.  Raises GraphFileError."""
    with atomic_write(path) as temporary:
        file = to_neuronpedia(graph, slug=slug, scan=scan, node_threshold=node_threshold)
        temporary.write_bytes(to_json(file))


def _nodes(graph: AttributionGraph) -> list[Node]:
    targets = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    influence = cumulative_influence(graph).tolist()
    activation = [_finite(number) for number in graph.nodes.activation.tolist()]
    top = graph.provenance.model.n_layers + 1
    result: list[Node] = []
    for row, node in enumerate(graph.nodes):
        is_target = node.kind in TARGET_KINDS
        node_id, js_id = spelled(node, top)
        clerp = graph.said(row)
        if is_target:  # the viewers parse this text
            clerp = f'Output "{targets[row].text}" (p={targets[row].probability:.3f})'
        result.append(
            Node(
                node_id=node_id,
                feature=feature_number(node),
                layer=str(top) if is_target else "E" if node.layer is None else str(node.layer),
                ctx_idx=node.pos or 0,
                feature_type=FEATURE_TYPES[node.kind],
                token_prob=float(graph.seed[row]),
                is_target_logit=is_target and row == min(targets),
                jsNodeId=js_id,
                clerp=clerp,
                influence=None if is_target else influence[row],
                activation=activation[row],
            )
        )
    return result


def _links(graph: AttributionGraph) -> list[Link]:
    top = graph.provenance.model.n_layers + 1
    names = [spelled(node, top)[0] for node in graph.nodes]
    targets: list[int] = edge_targets(graph.weights).tolist()
    sources: list[int] = graph.weights.indices.tolist()
    weights: list[float] = graph.weights.data.tolist()
    return [
        Link(source=names[source], target=names[target], weight=weight)
        for target, source, weight in zip(targets, sources, weights, strict=True)
    ]


def _extra(graph: AttributionGraph) -> Extra:
    return Extra(
        provenance=graph.provenance,
        weights_dtype="float32" if graph.weights.dtype == np.float32 else "float64",
        value=[_finite(number) for number in graph.nodes.value.tolist()],
        dropped=graph.dropped.tolist(),
        dropped_absolute=graph.dropped_absolute.tolist(),
        expanded=graph.expanded.tolist(),
        output_tokens=dict(graph.output_tokens),
    )


def _info(header: Provenance) -> dict[str, Any]:
    """Who made the graph and of what: the model's and the dictionary's full identity."""
    program, _, version = header.generator.partition(" ")
    urls = [_url(header.model), _url(header.dictionary)]
    return {
        "generator": {"name": program, "version": version},
        "transcoder_set": _identity(header.dictionary),
        "source_urls": [url for url in urls if url],
        "model": _identity(header.model),
    }


def _identity(source: ModelIdentity | DictionaryIdentity) -> str:
    return source.name if source.revision is None else f"{source.name}@{source.revision}"


def _url(source: ModelIdentity | DictionaryIdentity) -> str:
    """Address of a name with a commit, which can only be of the hub; a bare name may be a path."""
    if not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        return ""
    return f"https://huggingface.co/{source.name}/tree/{source.revision}"


def _allowed(name: str) -> str:
    if not name:
        raise ValueError("slug and scan need at least one character.")
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _pruning(header: Provenance) -> dict[str, Any]:
    recorded = header.settings.get("prune")
    return recorded if isinstance(recorded, dict) else {}


def _finite(number: float) -> float | None:
    return None if math.isnan(number) else number
