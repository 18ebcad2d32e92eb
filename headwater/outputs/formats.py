"""Formats of graph files, and which one a file's name asks for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import graphs
from graphs.errors import HeadwaterError


class Format(StrEnum):
    NEURONPEDIA = "neuronpedia"
    NODE_LINK = "node-link"
    GRAPHML = "graphml"
    GEXF = "gexf"
    DOT = "dot"
    PARQUET = "parquet"


SUFFIXES = {
    ".json": Format.NEURONPEDIA,
    ".graphml": Format.GRAPHML,
    ".gexf": Format.GEXF,
    ".dot": Format.DOT,
    ".gv": Format.DOT,
    ".parquet": Format.PARQUET,
}


class FormatError(HeadwaterError):
    """No format belongs to the name of a file."""


def format_of(path: Path) -> Format | None:
    """The format that a file's suffix asks for, other than our own; None if it names none."""
    return SUFFIXES.get(path.suffix.lower())


def write_as(
    format: Format,
    graph: graphs.AttributionGraph,
    path: Path,
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS,
) -> None:
    """Write a graph in one of the formats.  Raises GraphFileError if the file cannot be written.

    Writers are named here, not in a table: some need networkx, which takes long to import.
    """
    match format:
        case Format.NEURONPEDIA:
            graphs.write_neuronpedia(graph, path, graphs.Upload(), annotations)
        case Format.NODE_LINK:
            graphs.write_node_link(graph, path, annotations)
        case Format.GRAPHML:
            graphs.write_graphml(graph, path, annotations)
        case Format.GEXF:
            graphs.write_gexf(graph, path, annotations)
        case Format.DOT:
            graphs.write_dot(graph, path, annotations)
        case Format.PARQUET:
            graphs.write_parquet(graph, path, annotations)
