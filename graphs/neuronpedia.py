"""Writing the JSON of circuit-tracer and Neuronpedia.

`influence` is `cumulative_influence` in the whole graph, so that the viewers' sliders hide what
pruning at the same threshold would; token_prob is the seed, clerp of a feature is a person's
label, else the dictionary's, else the tokens that it raises most.  What the format has no field
for is under the extra key `headwater`, so that our own files come back as they were.

Neuronpedia takes files of up to 100 MiB.  A graph whose file might be larger is pruned at the
highest threshold, for nodes and edges alike, at which it is not, and `pruning_settings` says what
is hidden.

Their names of nodes are in `graphs.neuronpedia_names`.  Source of the demands on size, slug, scan,
layers and clerp: Neuronpedia's graph-schema.json, upload page and front end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json
from scipy.sparse import csr_array

from graphs.annotations import NO_ANNOTATIONS, Annotations
from graphs.files import GraphFileError, atomic_write
from graphs.graph import AttributionGraph, edge_targets
from graphs.neuronpedia_names import FEATURE_TYPES, feature_number, spelled
from graphs.neuronpedia_notes import notes_as_params
from graphs.neuronpedia_schema import Extra, GraphFile, Link, Metadata, Node
from graphs.nodes import INPUT_KINDS, TARGET_KINDS
from graphs.provenance import UNKNOWN, DictionaryIdentity, ModelIdentity, Provenance
from graphs.prune import PruneSettings, cumulative_influence, prune

LARGEST_UPLOAD = 100 * 2**20  # bytes
SMALLEST_UPLOAD = 2**10
_STEPS = 10  # of bisection, so that the threshold is exact to a thousandth
_FLOAT = 25  # characters of any float and a comma
_LINK = len('{"source":"","target":"","weight":},') + _FLOAT  # characters beside its ids
_NUMBERS = 3 * _FLOAT  # of a node that change with its edges: influence, and what its row lost


@dataclass(frozen=True)
class Upload:
    """How a graph appears at Neuronpedia.  Raises ValueError for an empty slug or scan.

    slug and scan (by default the last part of the model's name) may have letters, digits and
    `_.-` only: anything else becomes `-`.  node_threshold is where the viewer's slider starts;
    it hides nodes whose `influence` is higher: of a pruned graph give the threshold of the pruning.
    """

    slug: str
    scan: str | None = None
    node_threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.slug or self.scan == "":
            raise ValueError("slug and scan need at least one character.")


def to_neuronpedia(
    graph: AttributionGraph,
    upload: Upload,
    annotations: Annotations = NO_ANNOTATIONS,
    whole: AttributionGraph | None = None,
) -> dict[str, Any]:
    """A graph as the JSON of circuit-tracer and Neuronpedia, schema_version 1.

    `whole` is the graph of which this one is a part: the file says how much of it is hidden.
    Raises ValueError for an infinite activation.
    """
    return _Writer(upload, annotations, whole or graph).file(graph).model_dump(mode="json")


def write_neuronpedia(
    graph: AttributionGraph,
    path: Path | str,
    upload: Upload,
    annotations: Annotations = NO_ANNOTATIONS,
    whole: AttributionGraph | None = None,
    largest: int = LARGEST_UPLOAD,
) -> AttributionGraph:
    """Write `to_neuronpedia` to a file, whole or not at all, of at most `largest` bytes.

    Returns the graph that the file holds, which is pruned further if it would be larger.
    Raises GraphFileError, also if no part of the graph is small enough.
    """
    writer = _Writer(upload, annotations, whole or graph)
    with atomic_write(path) as temporary:
        part = writer.bounded(graph, largest)
        text = to_json(writer.file(part))
        if len(text) > largest:
            raise GraphFileError(
                f"Cannot write {path}: tokens and predictions alone take {len(text):,} bytes, "
                f"{largest:,} are allowed."
            )
        temporary.write_bytes(text)
    return part


def complaints(graph: AttributionGraph, path: Path | str) -> list[str]:
    """Why Neuronpedia would not take or show the file of a graph; one sentence each."""
    said: list[str] = []
    if Path(path).stat().st_size < SMALLEST_UPLOAD:
        said.append(f"Neuronpedia takes no file of less than {SMALLEST_UPLOAD} bytes.")
    if np.all(graph.nodes.layer <= 0):
        said.append("Neuronpedia's page shows no graph whose nodes are all in layer 0.")
    return said


@dataclass(frozen=True)
class _Writer:
    """What goes into a file beside the graph itself."""

    upload: Upload
    annotations: Annotations
    whole: AttributionGraph

    def file(self, graph: AttributionGraph) -> GraphFile:
        header, nodes = graph.provenance, _nodes(graph, self.whole, self.annotations)
        return GraphFile(
            metadata=Metadata(
                slug=_allowed(self.upload.slug),
                scan=_allowed(self.upload.scan or _last_part(header.model.name)),
                prompt_tokens=list(header.tokens),
                prompt=header.prompt,
                node_threshold=_slider(self.upload.node_threshold, graph, nodes),
                schema_version=1,
                info=_info(header),
                generation_settings={k: v for k, v in header.settings.items() if k != "prune"},
                pruning_settings=_pruning(header) | hidden(graph, self.whole),
            ),
            qParams=notes_as_params(self.annotations, graph),
            nodes=nodes,
            links=_links(graph),
            headwater=_extra(graph, self.annotations).model_dump(mode="json"),
        )

    def most_bytes(self, graph: AttributionGraph) -> int:
        """What the file can take at most, without writing a million links."""
        bare = graph.with_weights(csr_array(graph.weights.shape, dtype=graph.weights.dtype))
        uses = np.diff(graph.weights.indptr) + np.bincount(
            graph.weights.indices, minlength=len(graph)
        )
        top = graph.provenance.model.n_layers + 1
        names = np.array([len(spelled(node, top)[0]) for node in graph.nodes], dtype=np.int64)
        nodes = len(to_json(self.file(bare))) + len(graph) * _NUMBERS
        return nodes + graph.weights.nnz * _LINK + int(uses @ names)

    def bounded(self, graph: AttributionGraph, largest: int) -> AttributionGraph:
        """The graph, or as much of it as surely fits."""
        if self.most_bytes(graph) <= largest:
            return graph
        low, high = 0.0, 1.0
        part = prune(graph, PruneSettings(low, low))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            smaller = prune(graph, PruneSettings(middle, middle))
            if self.most_bytes(smaller) <= largest:
                low, part = middle, smaller
            else:
                high = middle
        return part


def _slider(threshold: float | None, graph: AttributionGraph, nodes: list[Node]) -> float | None:
    """The threshold; of a graph pruned at it, one at which the viewers show every node.

    Tokens and predictions they always show, and the node that crosses a threshold is kept.
    """
    if threshold is None or _pruning(graph.provenance).get("node_threshold") != threshold:
        return threshold
    may_hide = ~graph.nodes.is_kind(*INPUT_KINDS, *TARGET_KINDS)
    needed = [nodes[int(row)].influence or 0.0 for row in np.flatnonzero(may_hide)]
    return max([threshold, *needed])


def hidden(part: AttributionGraph, whole: AttributionGraph) -> dict[str, int]:
    """How much of the whole graph a part of it leaves out."""
    return {
        "hidden_nodes": len(whole) - len(part),
        "hidden_edges": int(whole.weights.nnz - part.weights.nnz),
    }


def _nodes(
    graph: AttributionGraph, whole: AttributionGraph, annotations: Annotations
) -> list[Node]:
    targets = dict(zip(graph.target_rows().tolist(), graph.provenance.targets, strict=True))
    rows = [whole.find(node) for node in graph.nodes]
    influence = cumulative_influence(whole)[rows].tolist()
    activation = [_finite(number) for number in graph.nodes.activation.tolist()]
    top = graph.provenance.model.n_layers + 1
    result: list[Node] = []
    for row, node in enumerate(graph.nodes):
        is_target = node.kind in TARGET_KINDS
        node_id, js_id = spelled(node, top)
        clerp = annotations.said(graph, row) or graph.said(row)
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


def _extra(graph: AttributionGraph, annotations: Annotations) -> Extra:
    return Extra(
        provenance=graph.provenance,
        weights_dtype="float32" if graph.weights.dtype == np.float32 else "float64",
        value=[_finite(number) for number in graph.nodes.value.tolist()],
        dropped=graph.dropped.tolist(),
        dropped_absolute=graph.dropped_absolute.tolist(),
        expanded=graph.expanded.tolist(),
        output_tokens=dict(graph.output_tokens),
        descriptions=dict(graph.descriptions),
        automatic=[group.name for group in annotations.groups if group.automatic],
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


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] or UNKNOWN


def _allowed(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", name)


def _pruning(header: Provenance) -> dict[str, Any]:
    recorded = header.settings.get("prune")
    return recorded if isinstance(recorded, dict) else {}


def _finite(number: float) -> float | None:
    return None if math.isnan(number) else number
