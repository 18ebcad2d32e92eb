"""What two people made of the same annotations is put together, or refused."""

from __future__ import annotations

import random

import pytest

from graphs.core.annotations import NO_ANNOTATIONS, Annotations, Group
from graphs.core.merging import MergeConflict, merged

A, B, C, D = (f"feature:0/{number}@1" for number in range(4))
READ = Annotations(
    pins=(A, B),
    labels={A: "a", B: "b"},
    groups=(Group(name="g", members=(A, B)),),
    places={"g": (1.0, 2.0)},
    hidden=(C,),
)


def changed(**parts: object) -> Annotations:
    return Annotations.model_validate(READ.model_dump() | parts)


def test_what_nobody_else_changed_is_as_it_was_sent():
    own = changed(pins=(B, C, A), labels={})
    assert merged(READ, READ, own) == own
    assert merged(READ, own, READ) == own
    assert merged(READ, own, own) == own
    assert merged(READ, NO_ANNOTATIONS, own) == own  # the file is gone, not what it said


def test_the_digest_of_the_graph_stays():
    own, there = changed(pins=(D,), digest="mine"), changed(pins=(C,), digest="theirs")
    assert merged(READ, there, own).digest == "mine"
    assert merged(READ, there, changed(pins=(D,))).digest == "theirs"
    stored = READ.model_copy(update={"digest": "theirs"})
    assert merged(READ, stored, own) == own  # nobody else changed what it says


def test_changes_of_different_things_are_put_together():
    there = changed(
        pins=(B, C),
        labels={A: "a", B: "bee", C: "c"},
        groups=(*READ.groups, Group(name="h", members=(C,))),
    )
    own = changed(pins=(A, B, D), labels={B: "b", D: "d"}, places={"g": (3.0, 4.0)}, hidden=())
    assert merged(READ, there, own) == Annotations(
        pins=(B, C, D),
        labels={B: "bee", C: "c", D: "d"},
        groups=(*READ.groups, Group(name="h", members=(C,))),
        places={"g": (3.0, 4.0)},
    )


@pytest.mark.parametrize(
    ("there", "own", "sentence"),
    [
        ({"labels": {A: "x", B: "b"}}, {"labels": {A: "y", B: "b"}}, f"The label of {A!r} was"),
        ({"labels": {B: "b"}}, {"labels": {A: "y", B: "b"}}, f"The label of {A!r} was"),
        ({"places": {}}, {"places": {"g": (0.0, 0.0)}}, "The place of 'g' was changed"),
        ({"groups": ()}, {"groups": (Group(name="g", members=(A,)),)}, "The group 'g' was"),
        (
            {"groups": (*READ.groups, Group(name="h", members=(C,)))},
            {"groups": (*READ.groups, Group(name="i", members=(C, D)))},
            f"several groups contain {C!r}",
        ),
    ],
)
def test_two_changes_of_one_thing_are_refused(there: dict, own: dict, sentence: str):
    for one, other in ((there, own), (own, there)):
        with pytest.raises(MergeConflict, match=sentence.replace("[", r"\[")):
            merged(READ, changed(**one), changed(**other))


def test_merging_pins_is_merging_sets():
    """A pin is there if both have it, or one of them put it there."""
    generator = random.Random(0)
    for _ in range(200):
        read, there, own = (
            {name for name in (A, B, C, D) if generator.random() < 0.5} for _ in range(3)
        )
        there = there or {A}
        sides = [Annotations(pins=tuple(sorted(side))) for side in (read, there, own)]
        assert set(merged(*sides).pins) == (there & own) | (there - read) | (own - read)
        assert len(set(merged(*sides).pins)) == len(merged(*sides).pins)
    assert merged(NO_ANNOTATIONS, NO_ANNOTATIONS, READ) == READ
