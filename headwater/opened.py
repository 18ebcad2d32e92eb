"""Reading graphs for a command, with remarks on other programs' files on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from circuits.graph_files import opened
from graphs import GraphFileError
from graphs.formats.neuronpedia.reader import ReadGraph
from headwater.outputs.kinds import Kind, kind_of
from headwater.terminal.printing import remark

NO_GRAPHS = (Kind.PAGE, Kind.DOT, Kind.GRAPHML, Kind.GEXF, Kind.NODE_LINK, Kind.PROFILE)


def graph_in(path: Path, spell: Callable[[int], str] | None = None) -> ReadGraph:
    """As `circuits.graph_files.opened.open_graph`; what else of ours a file is, is said."""
    try:
        return opened.open_graph(path, spell)
    except GraphFileError as error:
        kind = kind_of(path) if path.is_file() and os.access(path, os.R_OK) else None
        if kind in NO_GRAPHS:
            raise GraphFileError(
                f"{path} is {kind}, from which no graph is read: give the graph that it was made "
                "of, a .safetensors file or a JSON."
            ) from error
        raise


def open_graph(path: Path, spell: Callable[[int], str] | None = None) -> ReadGraph:
    """As `graph_in`; its remarks are printed."""
    read = graph_in(path, spell)
    for sentence in read.remarks:
        remark(f"{path}: {sentence}")
    return read
