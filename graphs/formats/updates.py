"""Updates: results and annotations are written into the current version of a graph's files.

Minutes may pass between reading a file and writing to it, and other processes may write meanwhile.
So the file is read again, changed and written under a lock; changes of others are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from graphs.core.annotations import (
    NO_ANNOTATIONS,
    Annotations,
    annotations_path,
    read_annotations,
    same_entries,
    write_annotations,
)
from graphs.core.graph import AttributionGraph
from graphs.core.provenance import Measured
from graphs.core.report import Report
from graphs.disk.files import GraphFileError
from graphs.disk.locks import locked
from graphs.formats.storage import arrays_of, read_graph, write_graph


def keep_measured(
    path: Path | str, read: AttributionGraph, measured: Iterable[Measured]
) -> AttributionGraph:
    """Add measurements of interventions on `read` to its file, and return the updated graph.

    Raises GraphFileError if the file cannot be read or written, or now holds another graph.
    """
    return _changed(path, read, lambda now: now.with_measured(measured))


def keep_report(path: Path | str, read: AttributionGraph, report: Report) -> AttributionGraph:
    """Add the report on `read` to its file, and return the updated graph.

    Raises GraphFileError as `keep_measured`, and if another report was written meanwhile.
    """

    def change(now: AttributionGraph) -> AttributionGraph:
        if now.provenance.report not in (read.provenance.report, report):
            raise GraphFileError(
                f"{path} got another report while this one was made: run the check again to "
                "replace it."
            )
        return now.with_report(report)

    return _changed(path, read, change)


def update_annotations(
    path: Path | str, change: Callable[[Annotations], Annotations]
) -> Annotations:
    """Apply `change` to the annotations in a file and return them; a missing file has none.

    Raises GraphFileError if the file cannot be read or written, and what `change` raises.
    """
    with locked(path):
        exists = Path(path).exists()
        now = read_annotations(path) if exists else NO_ANNOTATIONS
        changed = change(now)
        if changed != now or not exists:
            write_annotations(changed, path)
        return changed


def keep_annotations(annotations: Annotations, graph: Path | str) -> bool:
    """Write annotations next to a new graph file, unless it already has some.

    Returns whether they were written.  Raises GraphFileError as `update_annotations`.
    """
    if same_entries(annotations, NO_ANNOTATIONS):
        return False
    kept = update_annotations(
        annotations_path(graph),
        lambda existing: annotations if same_entries(existing, NO_ANNOTATIONS) else existing,
    )
    return kept is annotations


def _changed(
    path: Path | str,
    read: AttributionGraph,
    change: Callable[[AttributionGraph], AttributionGraph],
) -> AttributionGraph:
    with locked(path):
        now = read_graph(path)
        if not _is_same(read, now):
            raise GraphFileError(
                f"{path} now holds another graph than the one that was tested: run the test again."
            )
        changed = change(now)
        write_graph(changed, path)
        return changed


def _is_same(one: AttributionGraph, other: AttributionGraph) -> bool:
    """Whether two graphs are equal bit by bit, apart from measurements, report and stability."""
    cleared = {"measured": (), "report": None, "stability": None}
    headers = [graph.provenance.model_copy(update=cleared) for graph in (one, other)]
    arrays = [
        {name: (array.dtype, array.tobytes()) for name, array in arrays_of(graph).items()}
        for graph in (one, other)
    ]
    return headers[0] == headers[1] and arrays[0] == arrays[1]
