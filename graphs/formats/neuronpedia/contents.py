"""Contents of the JSON of circuit-tracer and Neuronpedia for a graph, part by part.

`influence` is `cumulative_influence` in the whole graph, so that the viewers' sliders hide the
nodes that pruning at the same threshold removes; token_prob is the seed where a probability is
known; clerp of a feature is a person's label, else the dictionary's, else the tokens that it
promotes most.  Fields that the format lacks are under the extra key `headwater`, so that reading a
file restores the graph exactly.  Metadata of an imported file that headwater does not compute is
copied.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphs.analysis.prune import cumulative_influence
from graphs.core.annotations import Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.nodes import INPUT_KINDS, TARGET_KINDS, NodeKind
from graphs.core.provenance import UNKNOWN, DictionaryIdentity, ModelIdentity, Provenance, Target
from graphs.formats.neuronpedia.names import FEATURE_TYPES, feature_number, spelled
from graphs.formats.neuronpedia.notes import notes_as_params
from graphs.formats.neuronpedia.schema import Extra, GraphFile, Link, Metadata, Node, member
from graphs.naming.names import Names


@dataclass(frozen=True)
class Upload:
    """How a graph appears at Neuronpedia.  Raises ValueError for an empty slug or scan.

    slug and scan may have letters, digits and `_.-` only; other characters become `-`.  None means
    the values of the imported file, else the name of the written file and the last part of the
    model's name.  node_threshold is where the viewer's slider starts; it hides nodes with higher
    `influence`: for a pruned graph give the threshold of the pruning.
    """

    slug: str | None = None
    scan: str | None = None
    node_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.slug == "" or self.scan == "":
            raise ValueError("slug and scan must not be empty.")


def file_of(
    graph: AttributionGraph,
    whole: AttributionGraph,
    annotations: Annotations,
    upload: Upload,
    name: str,
) -> GraphFile:
    """The file of a graph, which is a part of `whole`; `name` is the default slug."""
    nodes = _nodes(graph, whole, annotations)
    return GraphFile(
        metadata=_metadata(graph, whole, upload, name, nodes),
        qParams=notes_as_params(annotations, list(graph.nodes), nodes),
        nodes=nodes,
        links=_links(graph),
        headwater=extra(graph, annotations, list(range(len(graph))), nodes),
    )


def extra(
    graph: AttributionGraph, annotations: Annotations, rows: list[int], nodes: list[Node]
) -> dict[str, Any]:
    """Value of the key `headwater`; the nodes of the file are these rows of the graph."""
    seed = graph.seed[rows].tolist()
    fields = Extra(
        provenance=graph.provenance.without_stability(),
        weights_dtype="float32" if graph.weights.dtype == np.float32 else "float64",
        value=[_finite(number) for number in graph.nodes.value[rows].tolist()],
        seed=None if seed == [node.token_prob for node in nodes] else seed,
        dropped=graph.dropped[rows].tolist(),
        dropped_absolute=graph.dropped_absolute[rows].tolist(),
        expanded=graph.expanded[rows].tolist(),
        output_tokens={
            place: graph.output_tokens[row]
            for place, row in enumerate(rows)
            if row in graph.output_tokens
        },
        descriptions=dict(graph.descriptions),
        automatic=[group.name for group in annotations.groups if group.automatic],
    )
    return fields.model_dump(mode="json")


def hidden(part: AttributionGraph, whole: AttributionGraph) -> dict[str, int]:
    """Numbers of nodes and edges of the whole graph that are not in the part."""
    return {
        "hidden_nodes": len(whole) - len(part),
        "hidden_edges": int(whole.weights.nnz - part.weights.nnz),
    }


def allowed(name: str) -> str:
    """A name with characters that Neuronpedia does not allow replaced by `-`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _metadata(
    graph: AttributionGraph,
    whole: AttributionGraph,
    upload: Upload,
    name: str,
    nodes: list[Node],
) -> Metadata:
    header = graph.provenance
    theirs = member(header.settings, "imported")
    scan = theirs.get("scan")
    settings = {k: v for k, v in header.settings.items() if k not in ("prune", "imported")}
    ours = {
        "slug": allowed(upload.slug or name),
        "scan": allowed(upload.scan) if upload.scan else scan or _last_part(header.model.name),
        "prompt_tokens": list(header.tokens),
        "prompt": header.prompt,
        "node_threshold": _slider(upload.node_threshold, graph, nodes),
        "schema_version": 1,
        "info": _info(header) | member(theirs, "info"),
        "generation_settings": settings | member(theirs, "generation_settings"),
        "pruning_settings": _pruning(header) | hidden(graph, whole),
    }
    return Metadata.model_validate({**theirs, **ours})


def _slider(threshold: float | None, graph: AttributionGraph, nodes: list[Node]) -> float | None:
    """The threshold; for a graph pruned at it, one at which the viewers show every node.

    Viewers always show tokens and predictions; pruning keeps the node that crosses its threshold.
    """
    if threshold is None or _pruning(graph.provenance).get("node_threshold") != threshold:
        return threshold
    may_hide = ~graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)
    needed = [nodes[int(row)].influence or 0.0 for row in np.flatnonzero(may_hide)]
    return max([threshold, *needed])


def _clerp(names: Names, row: int) -> str:
    """A person's label, or that of a feature; empty for other nodes."""
    is_feature = names.graph.nodes.kind[row] == NodeKind.FEATURE
    return names.label(row) if is_feature else names.annotations.label(names.graph, row) or ""


def _nodes(
    graph: AttributionGraph, whole: AttributionGraph, annotations: Annotations
) -> list[Node]:
    targets = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    rows = [whole.find(node) for node in graph.nodes]
    influence = cumulative_influence(whole)[rows].tolist()
    activation = [_finite(number) for number in graph.nodes.activation.tolist()]
    top = graph.provenance.model.n_layers + 1
    result: list[Node] = []
    names = Names(graph, annotations)
    for row, node in enumerate(graph.nodes):
        is_target = node.kind in TARGET_KINDS
        node_id, js_id = spelled(node, top)
        clerp, probability = _clerp(names, row), 0.0
        if is_target:  # the viewers parse this text
            probability = _number(targets[row], float(graph.seed[row]))
            clerp = f'Output "{targets[row].text}" (p={probability:.3f})'
        result.append(
            Node(
                node_id=node_id,
                feature=feature_number(node),
                layer=str(top) if is_target else "E" if node.layer is None else str(node.layer),
                ctx_idx=node.pos or 0,
                feature_type=FEATURE_TYPES[node.kind],
                token_prob=probability,
                is_target_logit=is_target and row == min(targets),
                jsNodeId=js_id,
                clerp=clerp,
                influence=None if is_target else influence[row],
                activation=activation[row],
            )
        )
    return result


def _number(target: Target, seed: float) -> float:
    """Value of token_prob: 0 where the probability is unknown, as in other programs."""
    return 0.0 if target.probability is None else seed


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


def _info(header: Provenance) -> dict[str, Any]:
    """Generator, and the full identity of the model and the dictionary."""
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
    """Hub address of a name with a commit; empty without one, since the name may be a path."""
    if not re.fullmatch(r"[0-9a-f]{40}", source.revision or ""):
        return ""
    return f"https://huggingface.co/{source.name}/tree/{source.revision}"


def _last_part(name: str) -> str:
    return allowed(name.rstrip("/").rpartition("/")[2]) or UNKNOWN


def _pruning(header: Provenance) -> dict[str, Any]:
    return member(header.settings, "prune")


def _finite(number: float) -> float | None:
    return None if math.isnan(number) else number
