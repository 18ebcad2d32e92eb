"""headwater's graph file: arrays in safetensors with a JSON header, no pickle, no code.

The file is a safetensors file (https://github.com/huggingface/safetensors: 8 bytes of header
length, a JSON header, then little-endian arrays).  Its metadata has the key `headwater`; the
value is a JSON text:

    {"provenance": {"schema_version": 3, "generator": …, "model": …, …},
     "output_tokens": {"NODE": ["TOKEN", …], …},
     "descriptions": {"LAYER/INDEX": {"label": …, "examples": […], …}, …},
     "responses": {"norms": [{"before": …, "layer": …, …}, …], "neurons": …},
     "looks": [{"layer": …, "head": …, "query": …, …}, …]}

`provenance` is `graphs.core.provenance.Provenance`, a description
`graphs.core.nodes.Description`, a look `graphs.core.attended.Look`; NODE is a row number.
Descriptions, responses and looks may be missing.
The arrays, for N nodes and E edges, "int" being any signed integer and "float" float32 or float64:

    kind layer pos index          int [N]    the columns of `graphs.core.nodes.NodeTable`;
    activation value              float [N]  kind is a number of `NodeKind`, -1 a missing field
    seed dropped dropped_absolute float [N]  as in `graphs.core.graph.AttributionGraph`
    expanded                      bool [N]
    weights.indptr                int [N+1]  edges into node t are weights.indptr[t] to
    weights.indices               int [E]    weights.indptr[t+1] - 1; indices are their
    weights.data                  float [E]  sources, ascending and below t, data their weights

With responses there are also nodes of the kinds `norm`, `attention_norm` (A of them) and `gate`,
behind all others, from which no edge starts, and, as in `graphs.core.responses.Responses`:

    constant threshold            float [N]
    flows                         float [N, A]

Others that a file may have are in `graphs.formats.kept_parts`.

A writer must write all other arrays.  A reader must refuse a file that breaks any of this, that
fails its own checks (`graphs.core.soundness`), or that has a higher schema_version than it knows;
it may ignore other arrays.  Reading returns arrays with the dtype and the bits that were written.
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

from graphs.core.attended import Look
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import RESPONSE_KINDS, Description, NodeTable
from graphs.core.provenance import SCHEMA_VERSION, Provenance
from graphs.core.responses import FrozenNorm, NeuronForm, Responses
from graphs.core.soundness import require_sound
from graphs.disk.files import (
    GraphFileError,
    atomic_write,
    first_problem,
    refuse_newer,
    regular_file,
)
from graphs.formats.kept_parts import kept_arrays, kept_parts

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
_RESPONSES = {"constant": _FLOAT, "threshold": _FLOAT, "flows": _FLOAT}


class _Responding(BaseModel):
    """What responses have beside arrays."""

    model_config = ConfigDict(extra="forbid")

    norms: tuple[FrozenNorm, ...]
    neurons: NeuronForm | None


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid")

    provenance: Provenance
    output_tokens: dict[int, tuple[str, ...]]
    descriptions: dict[str, Description] = {}
    responses: _Responding | None = None
    looks: tuple[Look, ...] | None = None


def write_graph(graph: AttributionGraph, path: Path | str) -> None:
    """Write a graph to a file atomically; an existing file is replaced.

    Raises GraphFileError if the file cannot be written; an existing file is then unchanged.
    """
    dense = {name: np.ascontiguousarray(array) for name, array in arrays_of(graph).items()}
    with atomic_write(path) as temporary:
        for name, array in dense.items():
            if _dtype_code(array) not in (_ARRAYS | _RESPONSES)[name]:
                raise ValueError(f"{name} has dtype {array.dtype}")
        dense |= kept_arrays(graph)
        header = _Header(
            provenance=graph.provenance,
            output_tokens=dict(graph.output_tokens),
            descriptions=dict(graph.descriptions),
            responses=None
            if graph.responses is None
            else _Responding(norms=graph.responses.norms, neurons=graph.responses.neurons),
            looks=None if graph.attended is None else graph.attended.looks,
        )
        metadata = {_KEY: to_json(header).decode()}
        try:
            untyped(safetensors_numpy).save_file(dense, temporary, metadata=metadata)
        except SafetensorError as error:
            raise GraphFileError(f"Cannot write {path}: {error}.") from error
        with temporary.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > _LONGEST_HEADER:
                raise GraphFileError(
                    f"Cannot write {path}: output tokens and settings take more than "
                    f"{_LONGEST_HEADER // 10**6} MB; prune the graph first."
                )


def read_graph(path: Path | str) -> AttributionGraph:
    """The graph in a file, exactly as it was written.

    Raises GraphFileError if the file is missing, has another format, is damaged, or has a
    newer schema than this version of headwater reads.
    """
    file = regular_file(path)
    try:
        with untyped(safe_open)(file, framework="np") as opened:
            header, arrays = _checked(path, opened)
            behind = np.isin(arrays["kind"], RESPONSE_KINDS)
            n_nodes = len(behind) - int(np.count_nonzero(behind))
            kept = kept_parts(path, opened, header.looks, n_nodes)
    except (OSError, SafetensorError) as error:
        raise GraphFileError(f"{path} is not a whole safetensors file: {error}.") from error
    try:
        responses, arrays, weights = _without_responses(arrays, header.responses)
        graph = AttributionGraph(
            nodes=NodeTable(**{name: arrays[name] for name in _NODE_COLUMNS}),
            weights=weights,
            provenance=header.provenance,
            output_tokens=header.output_tokens,
            descriptions=header.descriptions,
            responses=responses,
            heads=kept.heads,
            attended=kept.attended,
            score_weights=kept.score_weights,
            imported=kept.imported,
            **{name: arrays[name] for name in _GRAPH_COLUMNS},
        )
        kept.require_consistent(graph)
        require_sound(graph)
    except ValueError as error:
        raise GraphFileError(f"{path} does not contain a valid graph: {error}") from error
    return graph


def arrays_of(graph: AttributionGraph) -> dict[str, ndarray]:
    """The arrays of a graph's file, by name: its nodes, then the rows of its norms."""
    arrays = graph.nodes.columns() | {name: getattr(graph, name) for name in _GRAPH_COLUMNS}
    arrays |= {name: getattr(graph.weights, name.partition(".")[2]) for name in _EDGE_ARRAYS}
    return arrays if graph.responses is None else _with_responses(arrays, graph.responses)


def _with_responses(arrays: dict[str, ndarray], rows: Responses) -> dict[str, ndarray]:
    """The arrays of a graph with its norm rows behind them."""
    count, edges = len(rows.nodes), len(arrays["weights.data"])
    behind = rows.nodes.columns() | {
        "seed": np.zeros(count),
        "dropped": rows.dropped,
        "dropped_absolute": rows.dropped_absolute,
        "expanded": np.ones(count, dtype=bool),
        "weights.indptr": rows.weights.indptr[1:].astype(np.int64) + edges,
        "weights.indices": rows.weights.indices,
        "weights.data": rows.weights.data,
        "threshold": np.full(count, np.nan),
    }
    arrays = {**arrays, "threshold": rows.threshold}
    dtypes = {name: array.dtype for name, array in arrays.items()}
    if edges + rows.weights.nnz > np.iinfo(dtypes["weights.indptr"]).max:
        dtypes["weights.indptr"] = np.dtype(np.int64)
    joined = {
        name: np.concatenate([array, behind[name]], dtype=dtypes[name])
        for name, array in arrays.items()
    }
    return joined | {"constant": rows.constant, "flows": rows.flows}


def _without_responses(
    arrays: dict[str, ndarray], header: _Responding | None
) -> tuple[Responses | None, dict[str, ndarray], csr_array]:
    """The responses, and the columns and weights of a graph without them.  Raises ValueError."""
    weights, behind = _weights(arrays), np.isin(arrays["kind"], RESPONSE_KINDS)
    if header is None or not _RESPONSES.keys() <= arrays.keys():
        if header is not None or np.any(behind):
            raise ValueError(f"Of its responses it lacks {', '.join(_RESPONSES)} or the header.")
        return None, arrays, weights
    count = len(behind) - int(np.count_nonzero(behind))
    if np.any(behind[:count]):
        raise ValueError("Norms and gates must come behind all other nodes.")
    if len(weights.indices) and weights.indices.max() >= count:
        raise ValueError("An edge starts at a norm or a gate.")
    start = weights.indptr
    responses = Responses(
        norms=header.norms,
        neurons=header.neurons,
        constant=arrays["constant"],
        threshold=arrays["threshold"][:count],
        nodes=NodeTable(**{name: arrays[name][count:] for name in _NODE_COLUMNS}),
        weights=_rows(weights, start[count:], count),
        dropped=arrays["dropped"][count:],
        dropped_absolute=arrays["dropped_absolute"][count:],
        flows=arrays["flows"],
    )
    responses.require_consistent()
    own = {name: arrays[name][:count] for name in _NODE_COLUMNS | _GRAPH_COLUMNS}
    return responses, own, _rows(weights, start[: count + 1], count)


def _rows(weights: csr_array, start: ndarray, n_columns: int) -> csr_array:
    """The rows whose edges start and end there, over the first columns."""
    some = slice(start[0], start[-1])
    parts = (weights.data[some], weights.indices[some], start - start[0])
    return csr_array(parts, shape=(len(start) - 1, n_columns))


def _dtype_code(array: ndarray) -> str:
    """Name of the dtype in safetensors."""
    kind = {"i": "I", "f": "F"}.get(array.dtype.kind)
    return f"{kind}{8 * array.dtype.itemsize}" if kind else array.dtype.name.upper()


def untyped(part: object) -> Any:
    """The argument as Any: the type stubs of safetensors are incomplete."""
    return part


def _checked(path: Path | str, file: Any) -> tuple[_Header, dict[str, ndarray]]:
    """Header and arrays, with dtypes and shapes checked against the format."""
    metadata: dict[str, str] | None = file.metadata()
    header = _header(path, metadata[_KEY] if metadata and _KEY in metadata else None)
    present = set(file.keys())
    missing = sorted(_ARRAYS.keys() - present)
    if missing:
        raise GraphFileError(f"{path} lacks the arrays {', '.join(missing)}.")
    known = _ARRAYS | {name: dtypes for name, dtypes in _RESPONSES.items() if name in present}
    forms = {name: file.get_slice(name) for name in known}
    shapes: dict[str, list[int]] = {name: form.get_shape() for name, form in forms.items()}
    nodes, edges = (shapes[name][:1] for name in ("kind", "weights.data"))
    if "flows" in known:
        shapes["flows"], width = shapes["flows"][:1], shapes["flows"][1:]
        if len(width) != 1:
            raise GraphFileError(f"{path}: flows must have two dimensions.")
    expected = dict.fromkeys(known, nodes) | dict.fromkeys(_EDGE_ARRAYS, edges)
    expected["weights.indptr"] = [count + 1 for count in nodes]
    for name, dtypes in known.items():
        dtype: str = forms[name].get_dtype()
        if dtype not in dtypes:
            raise GraphFileError(f"{path}: {name} must be {' or '.join(dtypes)}, is {dtype}.")
        if len(shapes[name]) != 1 or shapes[name] != expected[name]:
            raise GraphFileError(
                f"{path}: {name} must have shape {expected[name]}, has {shapes[name]}."
            )
    arrays: dict[str, ndarray] = {name: file.get_tensor(name) for name in known}
    if np.any(arrays["expanded"].view(np.uint8) > 1):
        raise GraphFileError(f"{path}: expanded must hold only the bytes 0 and 1.")
    return header, arrays


def _header(path: Path | str, text: str | None) -> _Header:
    if text is None:
        raise GraphFileError(f"{path} is a safetensors file, but not a headwater graph.")
    try:
        raw: Any = from_json(text, allow_inf_nan=False)
        version: Any = raw["provenance"]["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise GraphFileError(f"{path} has no readable header.") from error
    refuse_newer(path, version, SCHEMA_VERSION)
    try:
        return _Header.model_validate(raw)
    except ValidationError as error:
        raise GraphFileError(f"{path} has a damaged header: {first_problem(error)}.") from error


def _weights(arrays: dict[str, ndarray]) -> csr_array:
    """The weights, checked here because scipy trusts its arrays.  Raises ValueError."""
    start, source = arrays["weights.indptr"], arrays["weights.indices"]
    count = len(start) - 1
    if start[0] != 0 or start[-1] != len(source) or np.any(start[1:] < start[:-1]):
        raise ValueError("weights.indptr must ascend from 0 to the number of edges.")
    if len(source) and not 0 <= source.min() <= source.max() < count:
        raise ValueError("weights.indices refers to a node that does not exist.")
    first = np.zeros(len(source) + 1, dtype=bool)
    first[start] = True  # the first edge of each row may have any source
    if not np.all((source[1:] > source[:-1]) | first[1:-1]):
        raise ValueError("weights.indices must ascend within a row.")
    return csr_array((arrays["weights.data"], source, start), shape=(count, count))
