"""Graphs that a command reads, with remarks on files of others on standard error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import graphs
from circuits.graph_files import opened
from headwater.terminal.printing import remark


def open_graph(path: Path, spell: Callable[[int], str] | None = None) -> graphs.ReadGraph:
    """As `circuits.graph_files.opened.open_graph`, which says what had to be decided."""
    read = opened.open_graph(path, spell)
    for sentence in read.remarks:
        remark(f"{path}: {sentence}")
    return read
