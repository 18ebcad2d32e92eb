"""Updates: what is said about a graph is written into its files as they are now.

Between reading a file and keeping something in it minutes may pass, in which others write.  So the
file is read again, and changed and written under a lock; what has come meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from graphs.core.annotations import (
    NO_ANNOTATIONS,
    Annotations,
    annotations_path,
    read_annotations,
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
    """The graph as its file has it now, with what interventions on `read` measured.

    Raises GraphFileError if the file cannot be read or written, or holds another graph by now.
    """
    return _changed(path, read, lambda now: now.with_measured(measured))


def keep_report(path: Path | str, read: AttributionGraph, report: Report) -> AttributionGraph:
    """The graph as its file has it now, with the report on `read`.

    Raises GraphFileError as `keep_measured`, and if the file has got another report meanwhile.
    """

    def change(now: AttributionGraph) -> AttributionGraph:
        if now.provenance.report not in (read.provenance.report, report):
            raise GraphFileError(
                f"{path} has got another report while this one was made: check it again to "
                "replace that."
            )
        return now.with_report(report)

    return _changed(path, read, change)


def update_annotations(
    path: Path | str, change: Callable[[Annotations], Annotations]
) -> Annotations:
    """Write what `change` makes of the annotations in a file, and return it; none are nothing.

    Raises GraphFileError if the file cannot be read or written, and what `change` raises.
    """
    with locked(path):
        there = Path(path).exists()
        now = read_annotations(path) if there else NO_ANNOTATIONS
        changed = change(now)
        if changed != now or not there:
            write_annotations(changed, path)
        return changed


def keep_annotations(annotations: Annotations, graph: Path | str) -> bool:
    """Write what is said about a graph beside its new file, unless something is said there.

    Says whether it is.  Raises GraphFileError as `update_annotations`.
    """
    if annotations == NO_ANNOTATIONS:
        return False
    kept = update_annotations(
        annotations_path(graph),
        lambda there: annotations if there == NO_ANNOTATIONS else there,
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
                f"{path} holds another graph by now than the one that was tested: test it again."
            )
        changed = change(now)
        write_graph(changed, path)
        return changed


def _is_same(one: AttributionGraph, other: AttributionGraph) -> bool:
    """Whether two graphs are equal to the bit, whatever was found out about them in the model."""
    open_ = {"measured": (), "report": None}
    headers = [graph.provenance.model_copy(update=open_) for graph in (one, other)]
    arrays = [
        {name: (array.dtype, array.tobytes()) for name, array in arrays_of(graph).items()}
        for graph in (one, other)
    ]
    return headers[0] == headers[1] and arrays[0] == arrays[1]
