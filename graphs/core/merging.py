"""Merging annotations: a three-way merge of two edits of the same annotations.

Where only one side changed something, that change is taken.  Pins and hidden nodes always merge; a
label, group or place that both sides changed differently is a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from graphs.core.annotations import NO_ANNOTATIONS, Annotations, same_entries
from graphs.disk.files import first_problem
from graphs.errors import HeadwaterError

V = TypeVar("V")


class MergeConflict(HeadwaterError):
    """Both sides changed the same entry differently; the message is one sentence."""


def merged(base: Annotations, stored: Annotations, own: Annotations) -> Annotations:
    """Both the changes from `base` to `stored` and those from `base` to `own`.

    If `stored` is empty, all of `own` is kept.  Raises MergeConflict if both changed one label,
    group or place, or put one node into different groups.
    """
    if any(same_entries(stored, unchanged) for unchanged in (base, NO_ANNOTATIONS)):
        return own
    groups = [{group.name: group for group in side.groups} for side in (base, stored, own)]
    try:
        return Annotations(
            pins=_members(base.pins, stored.pins, own.pins),
            labels=_entries("label of", base.labels, stored.labels, own.labels),
            groups=tuple(_entries("group", *groups).values()),
            places=_entries("place of", base.places, stored.places, own.places),
            hidden=_members(base.hidden, stored.hidden, own.hidden),
            digest=own.digest or stored.digest,
        )
    except ValidationError as error:  # a node in two groups, one of each side
        problem = first_problem(error).removeprefix("Value error, ")
        raise MergeConflict(f"Cannot merge with the changes in the file: {problem}.") from error


def _members(
    base: tuple[str, ...], stored: tuple[str, ...], own: tuple[str, ...]
) -> tuple[str, ...]:
    kept = [name for name in stored if name in own or name not in base]
    return tuple(dict.fromkeys([*kept, *(name for name in own if name not in base)]))


def _entries(
    what: str, base: Mapping[str, V], stored: Mapping[str, V], own: Mapping[str, V]
) -> dict[str, V]:
    result: dict[str, V] = {}
    for name in dict.fromkeys([*stored, *own]):
        old, theirs, mine = (side.get(name) for side in (base, stored, own))
        if mine not in (old, theirs) and theirs != old:
            raise MergeConflict(
                f"The {what} {name!r} was changed both here and in the file, in different ways."
            )
        value = theirs if mine == old else mine
        if value is not None:
            result[name] = value
    return result
