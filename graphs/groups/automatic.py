"""Automatic groups, added to the user's own in annotations or in a graph's annotations file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from graphs.analysis.prune import prune
from graphs.comparison.profiles import Profile
from graphs.core.annotations import NO_ANNOTATIONS, Annotations, same_entries
from graphs.core.graph import AttributionGraph
from graphs.formats.updates import update_annotations
from graphs.groups.collapse import collapse
from graphs.groups.grouping import GroupSettings, find_groups, named_groups


def with_groups(
    graph: AttributionGraph,
    annotations: Annotations = NO_ANNOTATIONS,
    settings: GroupSettings | None = None,
    profile: Profile | None = None,
    at_most: int | None = None,
) -> Annotations:
    """The annotations with automatic groups of the features that the user has not grouped.

    With `at_most` there are at most so many groups, the user's own included, and they are among the
    nodes that pruning keeps (`grouped_part`).
    Raises CyclicGroups if the user's groups feed each other, TooManyFeatures as `find_groups`.
    """
    part = grouped_part(graph, at_most)
    own = Annotations(groups=tuple(group for group in annotations.groups if not group.automatic))
    kept = own.rows(part)
    if kept:
        collapse(part, kept)  # refuses groups that feed each other
    left = None if at_most is None else max(0, at_most - len(kept))
    found = find_groups(part, settings or GroupSettings(), tuple(kept.values()), profile, left)
    if part is not graph:  # names are those that they have in the whole graph
        found = [_rows_in(graph, part, rows) for rows in found]
    return annotations.with_automatic(named_groups(graph, found))


def grouped_part(graph: AttributionGraph, at_most: int | None) -> AttributionGraph:
    """What is grouped: with a budget what pruning keeps, else all of the graph."""
    return graph if at_most is None else prune(graph)


def _rows_in(
    graph: AttributionGraph, part: AttributionGraph, rows: Int[ndarray, " _member"]
) -> Int[ndarray, " _member"]:
    return np.array([graph.find(part.nodes[row]) for row in rows.tolist()], dtype=np.int64)


def keep_groups(
    graph: AttributionGraph, annotations: Annotations, graph_file: Path | str
) -> Annotations:
    """Write the automatic groups of `annotations` to the annotations file of a graph file.

    `graph` is what they are groups of: the file's graph, or its `grouped_part`.
    Without such a file all of `annotations` is written, which files of other programs may hold
    themselves.  Raises CyclicGroups if the user's groups in the file feed each other,
    GraphFileError as `update_annotations`.
    """
    automatic = tuple(group for group in annotations.groups if group.automatic)

    def change(stored: Annotations) -> Annotations:
        base = annotations if same_entries(stored, NO_ANNOTATIONS) else stored
        changed = base.with_automatic(automatic).made_of(graph)
        collapse(graph, changed.rows(graph))
        return changed

    return update_annotations(graph_file, change)
