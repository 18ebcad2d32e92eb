"""Automatic groups beside a person's own, in annotations and in the file beside a graph."""

from __future__ import annotations

from pathlib import Path

from graphs.comparison.profiles import Profile
from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.formats.updates import update_annotations
from graphs.groups.collapse import collapse
from graphs.groups.grouping import GroupSettings, find_groups, named


def with_groups(
    graph: AttributionGraph,
    annotations: Annotations = NO_ANNOTATIONS,
    settings: GroupSettings | None = None,
    profile: Profile | None = None,
) -> Annotations:
    """A person's groups, and automatic ones of what is left.

    Raises CyclicGroups if a person's groups feed each other, TooManyFeatures as `find_groups`.
    """
    own = {group.name for group in annotations.groups if not group.automatic}
    kept = {name: rows for name, rows in annotations.rows(graph).items() if name in own}
    collapse(graph, kept)
    found = find_groups(graph, settings or GroupSettings(), tuple(kept.values()), profile)
    return annotations.with_automatic(named(graph, found))


def keep_groups(
    graph: AttributionGraph, annotations: Annotations, beside: Path | str
) -> Annotations:
    """What lies beside a graph now, with the automatic groups of `annotations`.

    A graph of another program holds annotations itself, which go along where none lie beside it.
    Raises CyclicGroups if groups there feed each other by now, GraphFileError as
    `update_annotations`.
    """
    made = tuple(group for group in annotations.groups if group.automatic)

    def change(there: Annotations) -> Annotations:
        said = annotations if there == NO_ANNOTATIONS else there
        changed = said.with_automatic(made)
        collapse(graph, changed.rows(graph))
        return changed

    return update_annotations(beside, change)
