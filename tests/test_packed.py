"""Files that are packed with gzip: read where JSON is read, and never unpacked without a bound."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc

import pytest

import graphs.disk.files
from graphs.core.annotations import Annotations, write_annotations
from graphs.disk.files import is_packed, unpacked
from graphs.formats.neuronpedia.reader import read_neuronpedia
from graphs.formats.storage import write_graph
from tests.same_graph import assert_same_graph
from tests.test_cli import assert_refused, run
from tests.test_neuronpedia import GRAPH
from tests.test_neuronpedia_reader import circuit_tracer_file

TEXT = json.dumps(circuit_tracer_file()).encode()


@pytest.mark.parametrize("name", ["graph.json.gz", "graph.json", "graph"])
def test_a_packed_graph_is_the_graph(tmp_path, name: str):
    plain, packed = tmp_path / "plain.json", tmp_path / name
    plain.write_bytes(TEXT)
    packed.write_bytes(gzip.compress(TEXT))
    assert_same_graph(read_neuronpedia(packed).graph, read_neuronpedia(plain).graph)
    shown = run("show", packed)
    assert (shown.exit_code, shown.stdout) == (0, run("show", plain).stdout)


def test_what_is_said_about_a_packed_graph_lies_beside_it(tmp_path):
    (tmp_path / "graph.json.gz").write_bytes(gzip.compress(TEXT))
    notes = Annotations(labels={"0/77": "the greeting"})
    write_annotations(notes, tmp_path / "graph.annotations.json")
    assert "the greeting" in run("show", tmp_path / "graph.json.gz").stdout


def test_folders_of_packed_graphs_are_compared_by_their_names(tmp_path):
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            (tmp_path / folder / f"{name}.json.gz").write_bytes(gzip.compress(TEXT))
    done = run("compare", tmp_path / "one", tmp_path / "other", "--json", "--permutations", 5)
    assert (done.exit_code, json.loads(done.stdout)["prompts"]) == (0, ["a", "b"])
    (tmp_path / "one" / "a.json").write_bytes(TEXT)
    refused = run("compare", tmp_path / "one", tmp_path / "other")
    assert_refused(refused, "are both graphs of a: keep one of them")


def test_no_more_is_unpacked_than_is_allowed(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b"[" + b" " * 50_000_000))
    assert bomb.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(ValueError, match="decompresses to more than 1,048,576 bytes, the limit"):
        unpacked(bomb.read_bytes(), 2**20)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    monkeypatch.setattr(graphs.disk.files, "LARGEST_JSON", 2**20)
    assert_refused(
        run("show", bomb),
        "bomb.json.gz cannot be read: it decompresses to more than 1,048,576 bytes",
    )


def test_exactly_what_is_allowed_is_unpacked():
    packed = gzip.compress(b"x" * 1000) + b"\0" * 100
    assert unpacked(packed, 1000) == b"x" * 1000
    with pytest.raises(ValueError, match="decompresses to more than"):
        unpacked(packed, 999)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(TEXT)[:-9], "its compressed data is truncated"),
        (gzip.compress(TEXT)[:100], "its compressed data is truncated"),
        (gzip.compress(TEXT)[:-8] + b"\0" * 8, "its compressed data is damaged"),
        (
            gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]),
            "it has extra bytes after its compressed data",
        ),
        (gzip.compress(b"no graph"), "is not a graph of circuit-tracer or Neuronpedia"),
    ],
    ids=range(5),  # the bytes have the time in them
)
def test_a_damaged_packed_file_gets_one_sentence(tmp_path, content: bytes, reason: str):
    path = tmp_path / "graph.json.gz"
    path.write_bytes(content)
    assert_refused(run("show", path), reason)


def test_a_safetensors_file_that_begins_like_gzip_is_none(tmp_path):
    """Its first eight bytes are the length of its header, which may be any number."""
    write_graph(GRAPH, tmp_path / "plain.safetensors")
    content = (tmp_path / "plain.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    wanted = int.from_bytes(b"\x1f\x8b\x08\0\0\0\0\0", "little")
    header = content[8 : 8 + length].ljust(wanted)
    path = tmp_path / "graph.safetensors"
    path.write_bytes(struct.pack("<Q", wanted) + header + content[8 + length :])
    assert gzip.compress(TEXT, mtime=0)[:8] == path.read_bytes()[:8]
    assert is_packed(gzip.compress(TEXT, mtime=0))
    assert run("show", path).stdout == run("show", tmp_path / "plain.safetensors").stdout
