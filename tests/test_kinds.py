"""What a file holds is told by its content, whatever its name is."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors.numpy import save_file

import graphs
import viz
from graphs.formats.neuronpedia.contents import Upload
from headwater.outputs.kinds import Kind, kind_of
from tests.test_neuronpedia_reader import circuit_tracer_file
from tests.test_viewer_numbers import layered

FILES = Path(__file__).with_name("data") / "schema_1"
GRAPH = layered(0)
LONG = graphs.Annotations(labels={"0/0": '"metadata": ' * 1000})


WRITERS = {
    Kind.GRAPH: graphs.write_graph,
    Kind.PAGE: viz.write_page,
    Kind.NODE_LINK: graphs.write_node_link,
    Kind.GRAPHML: graphs.write_graphml,
    Kind.GEXF: graphs.write_gexf,
    Kind.DOT: graphs.write_dot,
    Kind.NEURONPEDIA: lambda graph, path: graphs.write_neuronpedia(graph, path, Upload("demo")),
    Kind.ANNOTATIONS: lambda _, path: graphs.write_annotations(LONG, path),
    Kind.PARQUET: lambda graph, path: graphs.write_parquet(graph, path)[0].rename(path),
    Kind.FIGURE: lambda graph, path: (
        viz.paper_figure(graph).write(path.with_suffix(".png")),
        path.with_suffix(".png").rename(path),
    ),
    Kind.PROFILE: lambda _, path: path.write_bytes((FILES / "features.profile").read_bytes()),
}


@pytest.mark.parametrize("kind", Kind)
def test_what_we_write_is_known_by_its_content(kind: Kind, tmp_path: Path):
    WRITERS[kind](GRAPH, tmp_path / "file")
    assert kind_of(tmp_path / "file") == kind


def test_files_of_the_first_schema_are_known():
    kinds = {
        "graph.safetensors": Kind.GRAPH,
        "features.profile": Kind.PROFILE,
        "graph.annotations.json": Kind.ANNOTATIONS,
        "graph.json": Kind.NEURONPEDIA,
        "audit/index.html": Kind.PAGE,
    }
    assert {name: kind_of(FILES / name) for name in kinds} == kinds


def test_a_graph_of_circuit_tracer_is_one_as_json(tmp_path: Path):
    (tmp_path / "file").write_text(json.dumps(circuit_tracer_file(), indent=2))
    assert kind_of(tmp_path / "file") == Kind.NEURONPEDIA


FOREIGN = {
    "tensors": lambda path: save_file({"a": np.zeros(3)}, path),
    "a file that is damaged": lambda path: path.write_bytes(
        (FILES / "graph.safetensors").read_bytes()[:5000]
    ),
    "an array of numpy": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(99)),
    "a zip archive, as torch and numpy write": lambda path: torch.save({}, path),
    "a page of another program": lambda path: path.write_text("<!DOCTYPE HTML>\n<p>headwater"),
    "JSON of another kind": lambda path: path.write_text('{"metadata": {"title": "mine"}}'),
    "a text": lambda path: path.write_text("the cat\ndigraph of cats"),
    "data of another program": lambda path: path.write_bytes(pickle.dumps([1.0] * 9)),
}


@pytest.mark.parametrize("words", FOREIGN)
def test_what_others_write_is_told_in_words(words: str, tmp_path: Path):
    FOREIGN[words](tmp_path / "file")
    assert kind_of(tmp_path / "file") == words


def test_a_table_of_others_is_theirs_and_an_empty_file_nobodys(tmp_path: Path):
    parquet.write_table(pyarrow.table({"text": ["headwater"] * 10_000}), tmp_path / "file")
    assert kind_of(tmp_path / "file") == "a table of another program"
    (tmp_path / "empty").touch()
    assert kind_of(tmp_path / "empty") is None
    (tmp_path / "ümlaut").write_text("ü" * 5000)  # the first 4096 bytes may end within a sign
    (tmp_path / "odd").write_text("a" + "ü" * 5000)
    assert kind_of(tmp_path / "ümlaut") == kind_of(tmp_path / "odd") == "a text"
    (tmp_path / "dot").write_text("digraph {}")
    assert kind_of(tmp_path / "dot") == "a text"
    (tmp_path / "newer").write_text('{"schema_version": 2, "pins": []}')
    assert kind_of(tmp_path / "newer") == "JSON of another kind"
