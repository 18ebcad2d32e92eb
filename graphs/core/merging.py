"""Merging annotations: what two people made of the same ones, put together.

Whatever one of them left as it was is as the other made it.  Pins and hidden nodes can always be
put together; where both changed one label, group or place, each in another way, nobody can tell
what is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.disk.files import first_problem
from graphs.errors import HeadwaterError

V = TypeVar("V")


class MergeConflict(HeadwaterError):
    """Two people said different things of one thing; the text is one sentence."""


def merged(read: Annotations, there: Annotations, own: Annotations) -> Annotations:
    """What two people made of `read`: one of them is `there` already, the other brings `own`.

    Where there is nothing by now, nothing of `own` goes.  Raises MergeConflict if both changed one
    label, group or place, or grouped one node.
    """
    if there in (read, NO_ANNOTATIONS):
        return own
    groups = [{group.name: group for group in side.groups} for side in (read, there, own)]
    try:
        return Annotations(
            pins=_members(read.pins, there.pins, own.pins),
            labels=_entries("label of", read.labels, there.labels, own.labels),
            groups=tuple(_entries("group", *groups).values()),
            places=_entries("place of", read.places, there.places, own.places),
            hidden=_members(read.hidden, there.hidden, own.hidden),
        )
    except ValidationError as error:  # a node in two groups, each made by one of them
        problem = first_problem(error).removeprefix("Value error, ")
        raise MergeConflict(f"Together with what has changed in the file, {problem}.") from error


def _members(
    read: tuple[str, ...], there: tuple[str, ...], own: tuple[str, ...]
) -> tuple[str, ...]:
    kept = [name for name in there if name in own or name not in read]
    return tuple(dict.fromkeys([*kept, *(name for name in own if name not in read)]))


def _entries(
    what: str, read: Mapping[str, V], there: Mapping[str, V], own: Mapping[str, V]
) -> dict[str, V]:
    result: dict[str, V] = {}
    for name in dict.fromkeys([*there, *own]):
        old, theirs, mine = (side.get(name) for side in (read, there, own))
        if mine not in (old, theirs) and theirs != old:
            raise MergeConflict(
                f"The {what} {name!r} was changed in the file meanwhile, and differently here."
            )
        value = theirs if mine == old else mine
        if value is not None:
            result[name] = value
    return result
