"""Formats of graph files, and which one a file's name asks for."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import graphs
import viz
from graphs.errors import HeadwaterError
from graphs.formats.neuronpedia.contents import Upload
from graphs.formats.parquet import parquet_paths
from graphs.formats.updates import keep_annotations
from headwater.outputs.places import NAMED, Kind, Output, output_to
from viz.paper.formats import figure_format


class Format(StrEnum):
    """Formats of other programs."""

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


def graph_output(path: Path | None, option: str = "--out") -> tuple[Output, ...]:
    """What `write_as` will write.  Raises FormatError for a suffix that names no format."""
    if path is None:
        return ()
    if is_named_as_ours(path):
        return output_to(path, Kind.GRAPH, option)
    if path.suffix.lower() in NAMED[Kind.PAGE]:
        return output_to(path, Kind.PAGE, option)
    format = format_of(path)
    if format is None:
        known = ", ".join((NAMED[Kind.GRAPH][0], NAMED[Kind.PAGE][0], *SUFFIXES))
        raise FormatError(f"{path.name!r} has none of the suffixes of graph files: {known}.")
    return outputs_of(format, path, option)


def is_named_as_ours(path: Path) -> bool:
    """Whether a file of this name is a graph of ours."""
    return path.suffix.lower() in ("", *NAMED[Kind.GRAPH])


def outputs_of(format: Format, path: Path, option: str = "--out") -> tuple[Output, ...]:
    """The files of a format of other programs."""
    files = parquet_paths(path) if format == Format.PARQUET and path.name else (path,)
    return tuple(Output(file, Kind[format.name], option) for file in files)


def figure_output(path: Path | None, option: str = "--out") -> tuple[Output, ...]:
    """The file of a figure.  Raises FigureError for a suffix that names no format of figures."""
    if path is not None:
        figure_format(path)
    return output_to(path, Kind.FIGURE, option)


def write_as(
    graph: graphs.AttributionGraph,
    path: Path,
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS,
    format: Format | None = None,
) -> None:
    """Write a graph in this format, or in that of the file's suffix; ours has annotations beside.

    Raises FormatError for a suffix that names no format, GraphFileError if it cannot be written.
    Writers are named here, not in a table: some need networkx, which takes long to import.
    """
    match format or format_of(path):
        case Format.NEURONPEDIA:
            graphs.write_neuronpedia(graph, path, Upload(), annotations)
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
        case None:
            _write_ours(graph, path, annotations)


def write_both(
    graph: graphs.AttributionGraph,
    out: Path | None,
    page: Path | None,
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS,
    read: Path | None = None,
) -> dict[str, str]:
    """Write a graph and a page of it, where they are asked for; the files by what they are.

    What the page saves belongs to the graph that is written, or else to the one that was read.

    Raises as `write_as`.
    """
    if out is not None:
        write_as(graph, out, annotations)
    if page is not None:
        viz.write_page(graph, page, annotations, file=out if _is_read(out) else read)
    return {name: str(path) for name, path in (("graph", out), ("page", page)) if path}


def _write_ours(
    graph: graphs.AttributionGraph, path: Path, annotations: graphs.Annotations
) -> None:
    """Our file, or a page."""
    (output, *_) = graph_output(path)
    if output.kind == Kind.PAGE:
        viz.write_page(graph, path, annotations)
        return
    graphs.write_graph(graph, path)
    keep_annotations(annotations.made_of(graph), path)


def _is_read(path: Path | None) -> bool:
    """Whether a graph of this name is read again, with the annotations beside it."""
    return path is not None and (is_named_as_ours(path) or format_of(path) == Format.NEURONPEDIA)
