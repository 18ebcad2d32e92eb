"""Open graph files of every format, headwater's and others, with their annotations."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from pathlib import Path

from graphs import NO_ANNOTATIONS, annotations_path, read_annotations, read_graph, read_neuronpedia
from graphs.core.annotations import of_another_graph
from graphs.disk.files import is_packed, regular_file
from graphs.formats.neuronpedia.reader import ReadGraph

SUFFIXES = (".safetensors", ".json", ".json.gz", ".pt")
_ZIP = b"PK\x03\x04"  # what torch.save writes; our safetensors never begin like this


def open_graph(path: Path | str, spell: Callable[[int], str] | None = None) -> ReadGraph:
    """A graph and its annotations, from the annotation file next to it or else from its own file.

    The format follows from the name or else the first bytes: our safetensors, a JSON of
    circuit-tracer, Neuronpedia and others, plain or gzipped, or circuit-tracer's .pt, whose token
    ids are turned into text by `spell`.  Remarks list what was assumed about a foreign file.

    Raises GraphFileError if it is none of these, damaged or missing.
    """
    path = Path(path)
    match _suffix(path):
        case ".pt":
            # Here, since only these files need torch, which takes seconds to import.
            from circuits.graph_files.circuit_tracer_pt import open_circuit_tracer

            read = open_circuit_tracer(path, spell)
        case ".json":
            read = read_neuronpedia(path)
        case _:
            read = ReadGraph(read_graph(path), NO_ANNOTATIONS)
    beside = annotations_path(path)
    return _with_annotations(read, beside) if beside.exists() else read


def _with_annotations(read: ReadGraph, beside: Path) -> ReadGraph:
    """The graph with the annotations of this file, and a remark if they are of another graph."""
    annotations = read_annotations(beside)
    foreign = of_another_graph(annotations, read.graph, beside)
    remarks = read.remarks if foreign is None else (*read.remarks, foreign)
    return read._replace(annotations=annotations, remarks=remarks)


def is_ours(path: Path) -> bool:
    """Whether a graph file has our format, which can store measured effects."""
    return _suffix(path) == ".safetensors"


def _suffix(path: Path) -> str:
    """The suffix of the file's format, by its name or else its first bytes."""
    start = _start(path)
    if path.suffix == ".pt" or start.startswith(_ZIP):
        return ".pt"
    return ".json" if path.suffix == ".json" or _is_json(start) else ".safetensors"


def _is_json(start: bytes) -> bool:
    """Safetensors begin with the length of their header, which has zeros among its bytes."""
    if is_packed(start):
        return True
    return start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{") and b"\0" not in start


def _start(path: Path) -> bytes:
    """The first bytes of a file; empty if it cannot be read, which the reader will report."""
    try:
        with regular_file(path).open("rb") as file:
            return file.read(9)
    except OSError:
        return b""
