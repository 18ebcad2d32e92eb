"""Reading graphs for a command, with remarks on other programs' files on standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from circuits.graph_files import opened
from graphs.formats.neuronpedia.reader import ReadGraph
from headwater.terminal.printing import remark


def open_graph(path: Path, spell: Callable[[int], str] | None = None) -> ReadGraph:
    """As `circuits.graph_files.opened.open_graph`; its remarks are printed."""
    read = opened.open_graph(path, spell)
    for sentence in read.remarks:
        remark(f"{path}: {sentence}")
    return read
