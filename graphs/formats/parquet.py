"""Graphs as Parquet: a table of nodes and a table of edges, for pandas, polars, DuckDB and others.

    NAME.nodes.parquet   node kind layer pos index activation value influence seed dropped
                         dropped_absolute expanded label group pinned
    NAME.edges.parquet   source target weight

Nodes are in topological order and named `str(NodeId)`, as are sources and targets of edges; fields
that do not apply are null.  The schema's metadata holds the header as JSON under the key
`headwater`.  Needs pyarrow: `pip install headwater[parquet]`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from pydantic_core import to_json

from graphs.analysis.influence import influence
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.disk.files import GraphFileError, atomic_write
from graphs.formats.interchange import node_labels

SUFFIX = ".parquet"


def parquet_paths(path: Path | str) -> tuple[Path, Path]:
    """Paths of the node table and the edge table.

    >>> [file.name for file in parquet_paths("dallas.parquet")]
    ['dallas.nodes.parquet', 'dallas.edges.parquet']
    """
    stem = Path(path)
    stem = stem.with_suffix("") if stem.suffix == SUFFIX else stem
    nodes, edges = (stem.with_name(f"{stem.name}.{part}{SUFFIX}") for part in ("nodes", "edges"))
    return nodes, edges


def write_parquet(
    graph: AttributionGraph, path: Path | str, annotations: Annotations = NO_ANNOTATIONS
) -> tuple[Path, Path]:
    """Write both tables, each whole or not at all, and return their paths.

    Raises GraphFileError if a file cannot be written or pyarrow is not installed.
    """
    try:
        arrow: Any = import_module("pyarrow")  # has no type stubs
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise GraphFileError(
            'Parquet needs pyarrow; run: pip install "headwater[parquet]".'
        ) from error
    files = parquet_paths(path)
    with atomic_write(files[0]) as nodes, atomic_write(files[1]) as edges:
        header = {"headwater": to_json(graph.provenance)}
        for temporary, columns in (
            (nodes, _nodes(graph, annotations)),
            (edges, _edges(graph)),
        ):
            arrays = {
                name: arrow.array(column, mask=mask) for name, (column, mask) in columns.items()
            }
            table = arrow.table(arrays)
            parquet.write_table(table.replace_schema_metadata(header), temporary)
    return files


_Column = tuple[Any, ndarray | None]  # values, and a mask of nulls


def _nodes(graph: AttributionGraph, annotations: Annotations) -> dict[str, _Column]:
    table = graph.nodes
    groups = annotations.group_names(graph)
    pinned = set(annotations.pins)
    names = [str(node) for node in table]
    integers = {name: getattr(table, name) for name in ("layer", "pos", "index")}
    floats = {name: getattr(table, name) for name in ("activation", "value")}
    return {
        "node": (names, None),
        "kind": ([node.kind.word for node in table], None),
        **{name: (column, column < 0) for name, column in integers.items()},
        **{name: (column, np.isnan(column)) for name, column in floats.items()},
        "influence": (influence(graph), None),
        "seed": (graph.seed, None),
        "dropped": (graph.dropped, None),
        "dropped_absolute": (graph.dropped_absolute, None),
        "expanded": (graph.expanded, None),
        "label": (node_labels(graph, annotations), None),
        "group": ([groups.get(row) for row in range(len(graph))], None),
        "pinned": ([name in pinned for name in names], None),
    }


def _edges(graph: AttributionGraph) -> dict[str, _Column]:
    names = np.array([str(node) for node in graph.nodes], dtype=object)
    return {
        "source": (names[graph.weights.indices], None),
        "target": (names[edge_targets(graph.weights)], None),
        "weight": (graph.weights.data, None),
    }
