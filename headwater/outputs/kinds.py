"""The kind of a file by its content, which decides whether an output may replace it."""

from __future__ import annotations

import codecs
import re
from enum import StrEnum
from importlib import import_module
from pathlib import Path

from safetensors import SafetensorError, safe_open

from graphs import GraphFileError, read_annotations

_HEAD = 4096  # bytes at the start that determine the kind of a file
_TAIL = 65536  # bytes at the end of a PDF, where it names the program that made it


class Kind(StrEnum):
    """What commands write, as messages name it."""

    GRAPH = "a graph of headwater"
    PROFILE = "a profile of headwater"
    ANNOTATIONS = "annotations"
    PAGE = "a page of headwater"
    NEURONPEDIA = "a graph as JSON"
    NODE_LINK = "a graph as node-link JSON"
    GRAPHML = "a graph as GraphML"
    GEXF = "a graph as GEXF"
    DOT = "a graph as DOT"
    PARQUET = "a table of headwater"
    FIGURE = "a figure of headwater"


_JSON = "JSON of another kind"
_FLAGS = re.DOTALL | re.IGNORECASE
_HEADERS = {"headwater": Kind.GRAPH, "headwater-profile": Kind.PROFILE}
# Kinds of texts by their first characters.  The generator that a page names marks our own.
_BEGINNINGS: tuple[tuple[str, str], ...] = (
    # An imported graph is exported with the keys that it had, in their order.
    (r'\{\s*"metadata"\s*:\s*\{.*"(nodes|links)"\s*:', Kind.NEURONPEDIA),
    (r'\{\s*"metadata"\s*:\s*\{.*"(slug|scan|prompt|prompt_tokens)"\s*:', Kind.NEURONPEDIA),
    (r'\{\s*"(graph_data|nodes|links|qParams)"\s*:', Kind.NEURONPEDIA),
    (r'\{\s*"directed"\s*:\s*(true|false)\s*,\s*"multigraph"', Kind.NODE_LINK),
    (r'digraph "', Kind.DOT),
    (r"<\?xml.*<svg\b.*<dc:creator>.*<dc:title>headwater</dc:title>", Kind.FIGURE),
    (r"(<\?xml[^>]*>\s*)?<graphml\b", Kind.GRAPHML),
    (r"(<\?xml[^>]*>\s*)?<gexf\b", Kind.GEXF),
    (r'<!doctype html>.*<meta name="generator" content="headwater', Kind.PAGE),
    (r"<(!doctype )?html\b", "a page of another program"),
    (r"[{[]", _JSON),
    ("", "a text"),
)


def kind_of(path: Path) -> str | None:
    """The kind of a file, a `Kind` or a description; None for an empty file.  Raises OSError."""
    with path.open("rb") as file:
        start = file.read(_HEAD)
    if not start:
        return None
    if start.startswith(b"PAR1"):
        return Kind.PARQUET if _is_our_table(path) else "a table of another program"
    if start.startswith((b"%PDF-", b"\x89PNG\r\n")):
        return Kind.FIGURE if _is_our_figure(path, start) else "a picture of another program"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, as torch and numpy write"
    if start.startswith(b"\x93NUMPY"):
        return "an array of numpy"
    if start[8:9] == b"{" and b"\0" in start[:8]:  # of safetensors, behind a length
        return _of_tensors(path)
    return _of_text(path, start)


def _is_our_table(path: Path) -> bool:
    """Whether a Parquet file has our header; False without pyarrow, which writing needs too."""
    try:
        metadata = import_module("pyarrow.parquet").read_schema(path).metadata
    except (ImportError, OSError, ValueError):  # its own errors are ValueErrors
        return False
    return b"headwater" in (metadata or {})


def _is_our_figure(path: Path, start: bytes) -> bool:
    """Whether a PDF or PNG names us: at its end the one, at its beginning the other."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return b"/Creator (headwater)" in file.read() or b"tEXtSoftware\0headwater" in start


def _of_tensors(path: Path) -> str:
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError):
        return "a file that is damaged"
    return next((kind for key, kind in _HEADERS.items() if key in metadata), "tensors")


def _of_text(path: Path, start: bytes) -> str:
    try:
        text, _ = codecs.utf_8_decode(start.removeprefix(codecs.BOM_UTF8))  # may end in half a sign
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "data of another program"
    found = next(kind for begins, kind in _BEGINNINGS if re.match(begins, text.lstrip(), _FLAGS))
    return Kind.ANNOTATIONS if found == _JSON and _is_annotations(path) else found


def _is_annotations(path: Path) -> bool:
    try:
        read_annotations(path)
    except GraphFileError:
        return False
    return True
