"""Automatic groups, added to the user's own in annotations or in a graph's annotations file."""

from __future__ import annotations

from pathlib import Path

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
) -> Annotations:
    """The annotations with automatic groups of the features that the user has not grouped.

    Raises CyclicGroups if the user's groups feed each other, TooManyFeatures as `find_groups`.
    """
    own = {group.name for group in annotations.groups if not group.automatic}
    kept = {name: rows for name, rows in annotations.rows(graph).items() if name in own}
    collapse(graph, kept)
    found = find_groups(graph, settings or GroupSettings(), tuple(kept.values()), profile)
    return annotations.with_automatic(named_groups(graph, found))


def keep_groups(
    graph: AttributionGraph, annotations: Annotations, graph_file: Path | str
) -> Annotations:
    """Write the automatic groups of `annotations` to the annotations file of a graph file.

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
