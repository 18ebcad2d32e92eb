"""A graph as two tables, of nodes and of edges, for pyarrow and pandas.

    nodes   node kind layer pos index activation value influence seed dropped dropped_absolute
            expanded label group pinned
    edges   source target weight

Nodes are in topological order and named `str(NodeId)`, as are sources and targets of edges; fields
that do not apply are null.  The metadata of a pyarrow table hold the graph's header as JSON under
the key `headwater`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy import ndarray
from pydantic_core import to_json

from graphs.analysis.influence import influence
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph, edge_targets
from graphs.disk.files import GraphFileError
from graphs.formats.labels import node_labels

_Column = tuple[Any, ndarray | None]  # values, and a mask of nulls
_INTEGERS = {"i", "u"}  # kinds of numpy types


class MissingPackage(GraphFileError):
    """An optional package is needed, and is not installed."""


def nodes_table(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> Any:
    """The nodes as a pyarrow table.  Raises MissingPackage if pyarrow is not installed."""
    return _arrow(graph, _nodes(graph, annotations))


def edges_table(graph: AttributionGraph) -> Any:
    """The edges as a pyarrow table.  Raises MissingPackage if pyarrow is not installed."""
    return _arrow(graph, _edges(graph))


def nodes_frame(graph: AttributionGraph, annotations: Annotations = NO_ANNOTATIONS) -> Any:
    """The nodes as a pandas data frame.  Raises MissingPackage if pandas is not installed."""
    return _frame(_nodes(graph, annotations))


def edges_frame(graph: AttributionGraph) -> Any:
    """The edges as a pandas data frame.  Raises MissingPackage if pandas is not installed."""
    return _frame(_edges(graph))


def _arrow(graph: AttributionGraph, columns: dict[str, _Column]) -> Any:
    arrow = _package("pyarrow", "Tables need pyarrow", '"headwater[parquet]"')
    arrays = {name: arrow.array(column, mask=mask) for name, (column, mask) in columns.items()}
    header = {"headwater": to_json(graph.provenance.without_stability())}
    return arrow.table(arrays).replace_schema_metadata(header)


def _frame(columns: dict[str, _Column]) -> Any:
    pandas = _package("pandas", "Data frames need pandas", "pandas")
    return pandas.DataFrame(
        {name: _series(pandas, column, mask) for name, (column, mask) in columns.items()}
    )


def _series(pandas: Any, column: Any, mask: ndarray | None) -> Any:
    """A column; integers with missing ones have pandas' own type for that."""
    if mask is not None and np.asarray(column).dtype.kind in _INTEGERS:
        return pandas.arrays.IntegerArray(np.asarray(column, dtype=np.int64), mask.copy())
    return column


def _package(name: str, need: str, install: str) -> Any:
    try:
        return import_module(name)  # has no type stubs
    except ImportError:
        raise MissingPackage(f"{need}; run: pip install {install}.") from None


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
