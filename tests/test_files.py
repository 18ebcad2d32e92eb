"""Files are written whole or not at all, and refused with one sentence."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import networkx as nx
import pytest

from graphs.core.graph import AttributionGraph
from graphs.disk.files import GraphFileError, atomic_write
from graphs.formats.interchange import write_graphml, write_node_link
from graphs.formats.neuronpedia.reader import read_neuronpedia
from graphs.formats.neuronpedia.writer import Upload, write_neuronpedia
from graphs.formats.storage import read_graph, write_graph
from tests.graph_oracles import make_graph

pytestmark = pytest.mark.usefixtures("either_system")

Writer = Callable[[AttributionGraph, Path], None]


def _write_neuronpedia(graph: AttributionGraph, path: Path) -> None:
    write_neuronpedia(graph, path, Upload("demo"))


WRITERS = {
    "safetensors": write_graph,
    "neuronpedia": _write_neuronpedia,
    "node-link": write_node_link,
    "graphml": write_graphml,
}


@pytest.fixture(params=sorted(WRITERS))
def write(request: pytest.FixtureRequest) -> Writer:
    return WRITERS[request.param]


@pytest.fixture
def graph() -> AttributionGraph:
    features = [f"feature:0/{i}@0" for i in range(40)]
    edges = {(f, "logit:1@0"): 1.0 for f in features}
    return make_graph([*features, "logit:1@0"], edges, output_tokens={0: (" a",)})


@contextmanager
def little_space() -> Iterator[None]:
    """No file may grow beyond 1 kB; within a test only, or pytest's own log could not grow."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_is_written_where_it_was_wanted(write, graph, tmp_path):
    write(graph, tmp_path / "graph")
    write(graph, tmp_path / "graph")
    assert [file.name for file in tmp_path.iterdir()] == ["graph"]


def test_without_space_the_old_file_stays_and_nothing_else(write, graph, tmp_path):
    (tmp_path / "graph").write_text("old")
    message = r"Cannot write .*graph: .*File too large"
    with little_space(), pytest.raises(GraphFileError, match=message):
        write(graph, tmp_path / "graph")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("graph", "old")]


def test_a_failure_at_the_last_moment_leaves_the_old_file(write, graph, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "graph").write_text("old")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(GraphFileError, match=r"Cannot write .*graph: Permission denied\.$"):
        write(graph, tmp_path / "graph")
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("graph", "old")]


def test_places_where_no_file_can_be_are_refused(write, graph, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphFileError, match=r"the folder .*missing does not exist\.$"):
        write(graph, tmp_path / "missing" / "graph")
    with pytest.raises(GraphFileError, match=r"the folder .*file does not exist\.$"):
        write(graph, tmp_path / "file" / "graph")
    with pytest.raises(GraphFileError, match="it exists and is not a regular file"):
        write(graph, tmp_path)
    with pytest.raises(GraphFileError, match="it exists and is not a regular file"):
        write(graph, Path(os.devnull))
    with pytest.raises(GraphFileError, match="null byte"):
        write(graph, tmp_path / "a\0b")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_text_that_is_no_unicode_is_refused(write, graph, tmp_path):
    odd = make_graph(
        ["token:0@0", "logit:1@0"],
        {("token:0@0", "logit:1@0"): 1.0},
        tokens=("\udc80", " the"),
    )
    if write is write_graphml:  # holds no surrogates, whole or half: they become U+FFFD
        write(odd, tmp_path / "graph")
        assert nx.read_graphml(tmp_path / "graph").nodes["token:0@0"]["label"] == "\ufffd"
        return
    with pytest.raises(GraphFileError, match=r"Cannot write .*surrogates not allowed\.$"):
        write(odd, tmp_path / "graph")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_block_leaves_nothing(tmp_path):
    def interrupted() -> None:
        with atomic_write(tmp_path / "graph") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_everything_is_on_the_disk_before_the_name_changes(
    write, graph, tmp_path, monkeypatch, either_system
):
    steps: list[str] = []
    flush, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: [steps.append("flush"), flush(file)])
    monkeypatch.setattr(Path, "replace", lambda *paths: [steps.append("rename"), rename(*paths)])
    write(graph, tmp_path / "graph")
    folder = ["flush"] if either_system == "posix" else []
    assert steps == ["flush", "rename", *folder]


def test_a_reason_that_is_a_sentence_keeps_one_full_stop(tmp_path):
    with (
        pytest.raises(GraphFileError, match=r"graph: A sentence\.$"),
        atomic_write(tmp_path / "graph"),
    ):
        raise ValueError("A sentence.")


def test_permissions_are_the_old_files_or_the_users_default(write, graph, tmp_path):
    old = os.umask(0o027)
    try:
        write(graph, tmp_path / "graph")
        assert (tmp_path / "graph").stat().st_mode & 0o777 == 0o640
        (tmp_path / "graph").chmod(0o604)
        write(graph, tmp_path / "graph")
        assert (tmp_path / "graph").stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(old)


@pytest.mark.parametrize("read", [read_graph, read_neuronpedia])
def test_what_is_no_file_is_refused(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path, reason in {
        tmp_path / "missing": "No such file or directory",
        tmp_path: "it is not a regular file",
        tmp_path / "pipe": "it is not a regular file",
        tmp_path / "a\0b": "embedded null byte",
    }.items():
        with pytest.raises(GraphFileError, match=rf"Cannot read .*: {reason}\.$"):
            read(path)


def test_the_other_format_is_refused(graph, tmp_path):
    write_graph(graph, tmp_path / "ours")
    write_neuronpedia(graph, tmp_path / "theirs", Upload("demo"))
    with pytest.raises(GraphFileError, match="theirs is not a whole safetensors file"):
        read_graph(tmp_path / "theirs")
    with pytest.raises(GraphFileError, match="ours is not a graph of circuit-tracer or"):
        read_neuronpedia(tmp_path / "ours")
    (tmp_path / "json").write_text(json.dumps([1]))
    with pytest.raises(GraphFileError, match="json is not a graph of circuit-tracer or"):
        read_neuronpedia(tmp_path / "json")
