"""Writing the JSON of circuit-tracer and Neuronpedia.

A whole graph that was read from such a file is written as it was read, see
`graphs.formats.neuronpedia.reexport`; any other as in `graphs.formats.neuronpedia.contents`.

Neuronpedia accepts files of up to 100 MiB.  A graph whose file might be larger is pruned at the
highest threshold, the same for nodes and edges, at which it fits; `pruning_settings` states how
much is hidden.

Source of the limits on size, slug, scan, layers and clerp: Neuronpedia's graph-schema.json, upload
page and front end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_json, to_jsonable_python
from scipy.sparse import csr_array

from graphs.analysis.prune import PruneSettings, prune
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.disk.files import GraphFileError, atomic_write
from graphs.formats.neuronpedia.contents import Upload, allowed, file_of
from graphs.formats.neuronpedia.names import spelled
from graphs.formats.neuronpedia.reexport import reexported_file
from graphs.formats.neuronpedia.schema import GraphFile, member

LARGEST_UPLOAD = 100 * 2**20  # bytes
SMALLEST_UPLOAD = 2**10
UPLOAD = Upload()
_STEPS = 10  # of bisection: the threshold is exact to a thousandth
_FLOAT = 25  # characters of any float and a comma
_LINK = len('{"source":"","target":"","weight":},') + _FLOAT  # characters without its ids
_NUMBERS = 3 * _FLOAT  # influence and dropped weights of a node, which change with its edges


def to_neuronpedia(
    graph: AttributionGraph,
    upload: Upload,
    annotations: Annotations = NO_ANNOTATIONS,
    whole: AttributionGraph | None = None,
) -> dict[str, Any]:
    """A graph as the JSON of circuit-tracer and Neuronpedia, schema_version 1.

    `whole` is the graph of which this one is a part: the file states how much of it is hidden.
    """
    return to_jsonable_python(_Writer(upload, annotations, whole or graph, "graph").file(graph))


def write_neuronpedia(
    graph: AttributionGraph,
    path: Path | str,
    upload: Upload,
    annotations: Annotations = NO_ANNOTATIONS,
    whole: AttributionGraph | None = None,
    largest: int = LARGEST_UPLOAD,
) -> AttributionGraph:
    """Write `to_neuronpedia` atomically to a file of at most `largest` bytes.

    Returns the graph in the file, pruned further if it would be larger.
    Raises GraphFileError, also if no part of the graph is small enough.
    """
    writer = _Writer(upload, annotations, whole or graph, Path(path).stem)
    with atomic_write(path) as temporary:
        part, text = writer.bounded(graph, largest)
        if len(text) > largest:
            raise GraphFileError(
                f"Cannot write {path}: tokens and predictions alone take {len(text):,} bytes, but "
                f"at most {largest:,} are allowed."
            )
        temporary.write_bytes(text)
    return part


def upload_problems(
    graph: AttributionGraph, path: Path | str, upload: Upload = UPLOAD
) -> list[str]:
    """Reasons for which Neuronpedia would refuse or not show the file; one sentence each."""
    problems: list[str] = []
    scan = str(member(graph.provenance.settings, "imported").get("scan", ""))
    if upload.scan is None and scan != allowed(scan):
        problems.append(
            f"Neuronpedia does not accept the scan {scan!r}: set --scan to its model id."
        )
    if Path(path).stat().st_size < SMALLEST_UPLOAD:
        problems.append(f"Neuronpedia does not accept files of less than {SMALLEST_UPLOAD} bytes.")
    if np.all(graph.nodes.layer <= 0):
        problems.append("Neuronpedia's page cannot show a graph whose nodes are all in layer 0.")
    return problems


@dataclass(frozen=True)
class _Writer:
    """Options of a file."""

    upload: Upload
    annotations: Annotations
    whole: AttributionGraph
    name: str  # default slug

    def file(self, graph: AttributionGraph) -> GraphFile | dict[str, Any]:
        if graph.imported is not None:
            return reexported_file(graph, graph.imported, self.annotations, self.upload)
        return file_of(graph, self.whole, self.annotations, self.upload, self.name)

    def most_bytes(self, graph: AttributionGraph) -> int:
        """Upper bound of the file's size, without writing a million links."""
        bare = graph.with_weights(csr_array(graph.weights.shape, dtype=graph.weights.dtype))
        uses = np.diff(graph.weights.indptr) + np.bincount(
            graph.weights.indices, minlength=len(graph)
        )
        top = graph.provenance.model.n_layers + 1
        names = np.array([len(spelled(node, top)[0]) for node in graph.nodes], dtype=np.int64)
        nodes = len(to_json(self.file(bare))) + len(graph) * _NUMBERS
        return nodes + graph.weights.nnz * _LINK + int(uses @ names)

    def bounded(self, graph: AttributionGraph, largest: int) -> tuple[AttributionGraph, bytes]:
        """The graph, or the largest pruned part that surely fits, and its file."""
        # An imported graph is written at about its original size.
        if graph.imported is not None or self.most_bytes(graph) <= largest:
            text = to_json(self.file(graph))
            if len(text) <= largest:
                return graph, text
        low, high = 0.0, 1.0
        part = prune(graph, PruneSettings(low, low))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            smaller = prune(graph, PruneSettings(middle, middle))
            if smaller.imported is None and self.most_bytes(smaller) <= largest:
                low, part = middle, smaller
            else:
                high = middle
        return part, to_json(self.file(part))
