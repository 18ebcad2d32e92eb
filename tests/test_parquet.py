"""Graphs as two Parquet tables."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from pydantic_core import from_json

from graphs.analysis.influence import influence
from graphs.core.annotations import Annotations, Group
from graphs.core.provenance import Provenance
from graphs.disk.files import GraphFileError
from graphs.formats.parquet import write_parquet
from tests.graph_oracles import make_graph, random_graphs
from tests.test_interchange import GRAPH, NAMES

pytestmark = pytest.mark.usefixtures("either_system")


def read(file: Path) -> pyarrow.Table:
    """A table, whose file is closed: arrow's own readers may hold it for a moment longer."""
    return pyarrow.parquet.read_table(pyarrow.BufferReader(file.read_bytes()))


@given(random_graphs())
@settings(max_examples=20, deadline=None)
def test_tables_hold_the_whole_graph(graph):
    with tempfile.TemporaryDirectory() as folder:
        nodes, edges = map(read, write_parquet(graph, Path(folder, "a")))
    names = [str(node) for node in graph.nodes]
    assert nodes["node"].to_pylist() == names
    assert nodes["influence"].to_pylist() == influence(graph).tolist()
    for name in ("seed", "dropped", "dropped_absolute", "expanded"):
        assert nodes[name].to_pylist() == getattr(graph, name).tolist()
    for name in ("layer", "pos", "index"):
        column = getattr(graph.nodes, name).tolist()
        assert nodes[name].to_pylist() == [None if value < 0 else value for value in column]
    for name in ("activation", "value"):
        column = getattr(graph.nodes, name).tolist()
        assert nodes[name].to_pylist() == [None if np.isnan(value) else value for value in column]
    entries = graph.weights.tocoo()
    rows = zip(*(edges[name].to_pylist() for name in ("source", "target", "weight")), strict=True)
    assert list(rows) == [
        (names[s], names[t], float(w))
        for t, s, w in zip(entries.row, entries.col, entries.data, strict=True)
    ]
    for table in (nodes, edges):
        header = Provenance.model_validate(from_json(table.schema.metadata[b"headwater"]))
        assert header == graph.provenance


def test_notes_are_columns(tmp_path):
    notes = Annotations(
        pins=("bias:0",),
        labels={"0/3": "capital"},
        groups=(Group(name="g", members=("error:0@1", "bias:0")),),
    )
    nodes = read(write_parquet(GRAPH, tmp_path / "a.parquet", notes)[0])
    assert nodes["label"].to_pylist()[2] == "capital"
    assert nodes["group"].to_pylist() == [None, "g", None, "g", None]
    assert [n for n, pin in zip(NAMES, nodes["pinned"].to_pylist(), strict=True) if pin] == [
        "bias:0"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.edges.parquet", "a.nodes.parquet"]


def test_an_empty_graph_is_written(tmp_path):
    files = write_parquet(make_graph([], {}, probabilities=[]), tmp_path / "a")
    assert [read(file).num_rows for file in files] == [0, 0]


def test_pyarrow_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(GraphFileError, match=r"Tables need pyarrow; run: pip install"):
        write_parquet(GRAPH, tmp_path / "a")
    assert not list(tmp_path.iterdir())
