"""Graphs as Parquet: a table of nodes and a table of edges, for pandas, polars, DuckDB and others.

    NAME.nodes.parquet, NAME.edges.parquet      columns as in `graphs.formats.tables`

Needs pyarrow: `pip install headwater[parquet]`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.disk.files import atomic_write
from graphs.formats.tables import edges_table, nodes_table

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

    Raises GraphFileError if a file cannot be written, MissingPackage if pyarrow is not installed.
    """
    tables = nodes_table(graph, annotations), edges_table(graph)
    parquet: Any = import_module("pyarrow.parquet")  # has no type stubs
    files = parquet_paths(path)
    with atomic_write(files[0]) as nodes, atomic_write(files[1]) as edges:
        for temporary, table in zip((nodes, edges), tables, strict=True):
            parquet.write_table(table, temporary)
    return files
