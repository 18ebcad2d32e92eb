"""Our graph file: arrays in safetensors, with a JSON header.  No pickle, nothing is executed.

The file is a safetensors file (https://github.com/huggingface/safetensors: 8 bytes of header
length, a JSON header, then little-endian arrays).  Its metadata has the key `headwater`; the
value is a JSON text:

    {"provenance": {"schema_version": 2, "generator": …, "model": …, …},
     "output_tokens": {"NODE": ["TOKEN", …], …},
     "descriptions": {"LAYER/INDEX": {"label": …, "examples": […], …}, …}}

`provenance` is `graphs.core.provenance.Provenance`, a description
`graphs.core.descriptions.Description`; NODE is a row number, and descriptions may be missing.  The
arrays, for N nodes and E edges, "int" being any signed integer and "float" float32 or float64:

    kind layer pos index          int [N]    the columns of `graphs.core.nodes.NodeTable`;
    activation value              float [N]  kind is a number of `NodeKind`, -1 a missing field
    seed dropped dropped_absolute float [N]  as in `graphs.core.graph.AttributionGraph`
    expanded                      bool [N]
    weights.indptr                int [N+1]  edges into node t are weights.indptr[t] up to, not
    weights.indices               int [E]    with, weights.indptr[t+1]; indices are their
    weights.data                  float [E]  sources, rising and below t, and data their weights

A graph that was read from a JSON of circuit-tracer, Neuronpedia or others, and is all of it, has as
well, as in `graphs.core.imported.Imported`:

    imported.text                 U8 [B]     the JSON, without links that are edges
    imported.rows                 int [N]    the node of each of its nodes
    imported.links                int [L]    the edge of each of its links, -1 where it is none

A writer must write all of the others.  A reader must refuse a file that breaks any of this, that
does not hold what its own checks say (`graphs.core.soundness`), or that has a higher schema_version
than it knows, and may ignore other arrays.  Arrays come back with the dtype and the bits with which
they were written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json
from safetensors import SafetensorError, safe_open
from safetensors import numpy as safetensors_numpy
from scipy.sparse import csr_array

from graphs.core.descriptions import Description
from graphs.core.graph import AttributionGraph
from graphs.core.imported import Imported
from graphs.core.nodes import NodeTable
from graphs.core.provenance import SCHEMA_VERSION, Provenance
from graphs.core.soundness import require_sound
from graphs.disk.files import (
    GraphFileError,
    atomic_write,
    first_problem,
    refuse_newer,
    regular_file,
)

_KEY = "headwater"
_LONGEST_HEADER = 100_000_000  # bytes; safetensors refuses to read more

_INT, _FLOAT, _BOOL = ("I8", "I16", "I32", "I64"), ("F32", "F64"), ("BOOL",)
_NODE_COLUMNS = {
    "kind": _INT,
    "layer": _INT,
    "pos": _INT,
    "index": _INT,
    "activation": _FLOAT,
    "value": _FLOAT,
}
_GRAPH_COLUMNS = {
    "seed": _FLOAT,
    "dropped": _FLOAT,
    "dropped_absolute": _FLOAT,
    "expanded": _BOOL,
}
_EDGE_ARRAYS = {"weights.indptr": _INT, "weights.indices": _INT, "weights.data": _FLOAT}
_ARRAYS = _NODE_COLUMNS | _GRAPH_COLUMNS | _EDGE_ARRAYS
_IMPORTED = {"imported.text": ("U8",), "imported.rows": _INT, "imported.links": _INT}


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provenance: Provenance
    output_tokens: dict[int, tuple[str, ...]]
    descriptions: dict[str, Description] = {}


def write_graph(graph: AttributionGraph, path: Path | str) -> None:
    """Write a graph to our file, whole or not at all; a file that is there is replaced.

    Raises GraphFileError if the file cannot be written; what was there then stays as it was.
    """
    dense = {name: np.ascontiguousarray(array) for name, array in arrays_of(graph).items()}
    with atomic_write(path) as temporary:
        for name, array in dense.items():
            if _dtype_code(array) not in _ARRAYS[name]:
                raise ValueError(f"{name} has dtype {array.dtype}")
        if graph.imported is not None:
            dense |= _imported_arrays(graph.imported)
        header = _Header(
            provenance=graph.provenance,
            output_tokens=dict(graph.output_tokens),
            descriptions=dict(graph.descriptions),
        )
        metadata = {_KEY: to_json(header).decode()}
        try:
            untyped(safetensors_numpy).save_file(dense, temporary, metadata=metadata)
        except SafetensorError as error:
            raise GraphFileError(f"Cannot write {path}: {error}.") from error
        with temporary.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _LONGEST_HEADER:
                raise GraphFileError(
                    f"Cannot write {path}: its output tokens and settings take more than "
                    f"{_LONGEST_HEADER // 10**6} MB, prune the graph first."
                )


def read_graph(path: Path | str) -> AttributionGraph:
    """The graph in our file, exactly as it was written.

    Raises GraphFileError if the file is missing, is of another format, is damaged, or is of a
    newer schema than this version of headwater knows.
    """
    file = regular_file(path)
    try:
        with untyped(safe_open)(file, framework="np") as opened:
            header, arrays = _checked(path, opened)
            imported = _imported(path, opened)
    except (OSError, SafetensorError) as error:
        raise GraphFileError(f"{path} is not a whole safetensors file: {error}.") from error
    try:
        graph = AttributionGraph(
            nodes=NodeTable(**{name: arrays[name] for name in _NODE_COLUMNS}),
            weights=_weights(arrays),
            provenance=header.provenance,
            output_tokens=header.output_tokens,
            descriptions=header.descriptions,
            imported=imported,
            **{name: arrays[name] for name in _GRAPH_COLUMNS},
        )
        require_sound(graph)
    except ValueError as error:
        raise GraphFileError(f"{path} does not hold a sound graph: {error}") from error
    return graph


def arrays_of(graph: AttributionGraph) -> dict[str, ndarray]:
    """All that a graph's file holds beside the header."""
    arrays = graph.nodes.columns() | {name: getattr(graph, name) for name in _GRAPH_COLUMNS}
    return arrays | {name: getattr(graph.weights, name.partition(".")[2]) for name in _EDGE_ARRAYS}


def _dtype_code(array: ndarray) -> str:
    """Name of the dtype in safetensors."""
    kind = {"i": "I", "f": "F"}.get(array.dtype.kind)
    return f"{kind}{8 * array.dtype.itemsize}" if kind else array.dtype.name.upper()


def untyped(part: object) -> Any:
    """The same; safetensors has types for a part of itself only."""
    return part


def _checked(path: Path | str, file: Any) -> tuple[_Header, dict[str, ndarray]]:
    """Header and arrays, once dtypes and shapes are as the format says."""
    metadata: dict[str, str] | None = file.metadata()
    header = _header(path, metadata[_KEY] if metadata and _KEY in metadata else None)
    missing = sorted(_ARRAYS.keys() - set(file.keys()))
    if missing:
        raise GraphFileError(f"{path} lacks the arrays {', '.join(missing)}.")
    forms = {name: file.get_slice(name) for name in _ARRAYS}
    shapes: dict[str, list[int]] = {name: form.get_shape() for name, form in forms.items()}
    nodes, edges = (shapes[name][:1] for name in ("kind", "weights.data"))
    expected = dict.fromkeys(_ARRAYS, nodes) | dict.fromkeys(_EDGE_ARRAYS, edges)
    expected["weights.indptr"] = [count + 1 for count in nodes]
    for name, dtypes in _ARRAYS.items():
        dtype: str = forms[name].get_dtype()
        if dtype not in dtypes:
            raise GraphFileError(f"{path}: {name} must be {' or '.join(dtypes)}, is {dtype}.")
        if len(shapes[name]) != 1 or shapes[name] != expected[name]:
            raise GraphFileError(
                f"{path}: {name} must have shape {expected[name]}, has {shapes[name]}."
            )
    arrays: dict[str, ndarray] = {name: file.get_tensor(name) for name in _ARRAYS}
    if np.any(arrays["expanded"].view(np.uint8) > 1):
        raise GraphFileError(f"{path}: expanded holds bytes other than 0 and 1.")
    return header, arrays


def _imported_arrays(imported: Imported) -> dict[str, ndarray]:
    return {
        "imported.text": np.frombuffer(imported.text, dtype=np.uint8),
        "imported.rows": np.ascontiguousarray(imported.rows),
        "imported.links": np.ascontiguousarray(imported.links),
    }


def _imported(path: Path | str, file: Any) -> Imported | None:
    """What is kept of the JSON that the graph was read from, if anything is."""
    missing = sorted(_IMPORTED.keys() - set(file.keys()))
    if len(missing) == len(_IMPORTED):
        return None
    if missing:
        raise GraphFileError(f"{path} lacks the arrays {', '.join(missing)}.")
    for name, dtypes in _IMPORTED.items():
        form = file.get_slice(name)
        if form.get_dtype() not in dtypes or len(form.get_shape()) != 1:
            raise GraphFileError(f"{path}: {name} must be one row of {' or '.join(dtypes)}.")
    text, rows, links = (file.get_tensor(name) for name in _IMPORTED)
    return Imported(text.tobytes(), rows, links)


def _header(path: Path | str, text: str | None) -> _Header:
    if text is None:
        raise GraphFileError(f"{path} is a safetensors file, but not of headwater.")
    try:
        raw: Any = from_json(text, allow_inf_nan=False)
        version: Any = raw["provenance"]["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise GraphFileError(f"{path} has no header that can be read.") from error
    refuse_newer(path, version, SCHEMA_VERSION)
    try:
        return _Header.model_validate(raw)
    except ValidationError as error:
        raise GraphFileError(f"{path} has a damaged header: {first_problem(error)}.") from error


def _weights(arrays: dict[str, ndarray]) -> csr_array:
    """The matrix, checked before scipy, which trusts its arrays.  Raises ValueError."""
    start, source = arrays["weights.indptr"], arrays["weights.indices"]
    count = len(start) - 1
    if start[0] != 0 or start[-1] != len(source) or np.any(start[1:] < start[:-1]):
        raise ValueError("weights.indptr does not rise from 0 to the number of edges.")
    if len(source) and not 0 <= source.min() <= source.max() < count:
        raise ValueError("weights.indices names a node that is not there.")
    first = np.zeros(len(source) + 1, dtype=bool)
    first[start] = True  # the first edge of each row may have any source
    if not np.all((source[1:] > source[:-1]) | first[1:-1]):
        raise ValueError("weights.indices does not rise within a row.")
    return csr_array((arrays["weights.data"], source, start), shape=(count, count))
