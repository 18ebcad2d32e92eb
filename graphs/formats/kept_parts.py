"""Arrays that a graph's file may have beside its nodes, edges and responses (`storage`).

With heads, for R of the nodes, as in `graphs.core.head_totals.HeadTotals` (4 bytes per head):

    heads.row                     int [R]
    heads.parts                   float [R, layers, heads of a layer]
    heads.rest                    float [R]

With attention taken apart, when the header has looks, for A of the edges, as in
`graphs.core.attended.EdgeParts` (56 bytes per edge; none in graphs with head nodes):

    attended.target .source       int [A]
    attended.bypass .rest         float [A]
    attended.layer .head          int [A, K]
    attended.part                 float [A, K]

With head nodes and what makes them look where they look, for S effects through patterns
(`graphs.core.graph.AttributionGraph.score_weights`), in order of target and source:

    scores.target .source         int [S]
    scores.weight                 float [S]

A whole graph that was read from a JSON of circuit-tracer, Neuronpedia or others also has, as in
`graphs.core.imported.Imported`:

    imported.text                 U8 [B]     the JSON, without links that are edges
    imported.rows                 int [N]    row of each node of the JSON
    imported.links                int [L]    edge number of each link of the JSON, -1 for none
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.core.attended import Attended, EdgeParts, Look
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.core.head_totals import HeadTotals
from graphs.core.imported import Imported
from graphs.disk.files import GraphFileError

_INT, _FLOAT = ("I8", "I16", "I32", "I64"), ("F32", "F64")
# Of each array its types and its number of dimensions.
_HEADS = {"heads.row": (_INT, 1), "heads.parts": (_FLOAT, 3), "heads.rest": (_FLOAT, 1)}
_ATTENDED = {
    "attended.target": (_INT, 1),
    "attended.source": (_INT, 1),
    "attended.bypass": (_FLOAT, 1),
    "attended.rest": (_FLOAT, 1),
    "attended.layer": (_INT, 2),
    "attended.head": (_INT, 2),
    "attended.part": (_FLOAT, 2),
}
_SCORES = {
    "scores.target": (_INT, 1),
    "scores.source": (_INT, 1),
    "scores.weight": (_FLOAT, 1),
}
_IMPORTED = {
    "imported.text": (("U8",), 1),
    "imported.rows": (_INT, 1),
    "imported.links": (_INT, 1),
}


@dataclass(frozen=True)
class KeptParts:
    """What a graph has beside its nodes, edges and responses."""

    heads: HeadTotals | None
    attended: Attended | None
    score_weights: csr_array | None
    imported: Imported | None

    def require_consistent(self, graph: AttributionGraph) -> None:
        """Raises ValueError if heads or edges are not those of the graph."""
        if self.heads is not None:
            self.heads.require_consistent(len(graph))
        if self.attended is not None:
            if self.attended.edges is not None:
                self.attended.edges.require_consistent(len(graph))
            self.attended.require_inside(len(graph.provenance.tokens))


def kept_arrays(graph: AttributionGraph) -> dict[str, ndarray]:
    """Their arrays, by name."""
    edges = None if graph.attended is None else graph.attended.edges
    parts = {
        "heads": None if graph.heads is None else vars(graph.heads),
        "attended": None if edges is None else vars(edges),
    }
    found = {
        f"{part}.{name}": np.ascontiguousarray(array)
        for part, arrays in parts.items()
        for name, array in (arrays or {}).items()
    }
    if graph.score_weights is not None:
        scores = graph.score_weights
        found["scores.target"] = edge_targets(scores).astype(np.int32)
        found["scores.source"] = scores.indices.astype(np.int32)
        found["scores.weight"] = np.ascontiguousarray(scores.data)
    if graph.imported is not None:
        found["imported.text"] = np.frombuffer(graph.imported.text, dtype=np.uint8)
        for name in ("rows", "links"):
            found[f"imported.{name}"] = np.ascontiguousarray(getattr(graph.imported, name))
    return found


def kept_parts(
    path: Path | str, file: Any, looks: tuple[Look, ...] | None, n_nodes: int
) -> KeptParts:
    """What a file has of them.  Raises GraphFileError for a part that is not whole."""
    heads, edges, scores, imported = (
        _whole(path, file, known) for known in (_HEADS, _ATTENDED, _SCORES, _IMPORTED)
    )
    if edges is not None and looks is None:
        raise GraphFileError(f"{path} has heads of edges without looks.")
    for name, arrays in (("heads", heads), ("attended", edges), ("scores", scores)):
        if arrays is not None and len({len(array) for array in arrays}) > 1:
            raise GraphFileError(f"{path}: the arrays {name}.* must have one length.")
    if edges is not None and len({array.shape[1] for array in edges[4:]}) > 1:
        raise GraphFileError(f"{path}: the arrays attended.* must have as many heads each.")
    return KeptParts(
        heads=None if heads is None else HeadTotals(*heads),
        attended=None
        if looks is None
        else Attended(None if edges is None else EdgeParts(*edges), looks),
        score_weights=None if scores is None else _matrix(path, scores, n_nodes),
        imported=None
        if imported is None
        else Imported(imported[0].tobytes(), imported[1], imported[2]),
    )


def _matrix(path: Path | str, scores: list[ndarray], n_nodes: int) -> csr_array:
    """Effects through patterns.  Raises GraphFileError if their ends are in disorder."""
    target, source, weight = scores
    keys = target.astype(np.int64) * n_nodes + source
    inside = np.all((target >= 0) & (target < n_nodes) & (source >= 0) & (source < n_nodes))
    if not inside or np.any(np.diff(keys) <= 0):
        raise GraphFileError(
            f"{path}: scores.* must be between nodes, and ascend by target and source."
        )
    counts = np.bincount(target, minlength=n_nodes)
    indptr = np.concatenate([[0], counts.cumsum()])
    return csr_array((weight, source, indptr), shape=(n_nodes, n_nodes))


def _whole(
    path: Path | str, file: Any, known: dict[str, tuple[tuple[str, ...], int]]
) -> list[ndarray] | None:
    """Arrays that a file has all of or none of; None: none.  Raises GraphFileError."""
    missing = sorted(known.keys() - set(file.keys()))
    if len(missing) == len(known):
        return None
    if missing:
        raise GraphFileError(f"{path} lacks the arrays {', '.join(missing)}.")
    for name, (dtypes, count) in known.items():
        form = file.get_slice(name)
        if form.get_dtype() not in dtypes or len(form.get_shape()) != count:
            raise GraphFileError(
                f"{path}: {name} must be a {count}D array of {' or '.join(dtypes)}."
            )
    return [file.get_tensor(name) for name in known]
