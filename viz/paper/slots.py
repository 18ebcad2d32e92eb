"""Slots: the places of a figure, each for one box of every graph that has its counterpart.

Boxes of two graphs share a slot if they are counterparts and the arrows of both together still go
from lower slots to higher ones; otherwise each has a slot of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from graphs.groups.collapse import CyclicGroups, topological_order
from graphs.groups.overview import Overview
from viz.paper.arrows import drawn_arrows

Slot = tuple[int | None, ...]  # number of the box of each graph; None: it has none there


def own_slots(overview: Overview) -> list[Slot]:
    """A slot for each box of one graph, sources before targets."""
    return [(number,) for number in overview.occupied]


def shared_slots(
    first: Overview, second: Overview, counterparts: Sequence[tuple[int, int]]
) -> list[Slot]:
    """Slots of two graphs, sources before targets; the first counterparts share theirs first."""
    there = (set(first.occupied), set(second.occupied))
    admitted: list[tuple[int, int]] = []
    found = _ordered(first, second, admitted)
    for one, other in counterparts:
        if one in there[0] and other in there[1]:
            try:
                found = _ordered(first, second, [*admitted, (one, other)])
            except CyclicGroups:
                continue
            admitted.append((one, other))
    return found


def _ordered(first: Overview, second: Overview, pairs: Sequence[tuple[int, int]]) -> list[Slot]:
    """All slots, sources before targets.  Raises CyclicGroups."""
    partner = dict(pairs)
    taken = set(partner.values())
    slots: list[Slot] = [(n, partner.get(n)) for n in first.occupied]
    slots += [(None, n) for n in second.occupied if n not in taken]
    feeds = np.zeros((len(slots), len(slots)))
    for side, overview in enumerate((first, second)):
        at = {slot[side]: place for place, slot in enumerate(slots)}
        for arrow in drawn_arrows(overview).shown:
            feeds[at[arrow.target], at[arrow.source]] = 1.0
    order = topological_order(csr_array(feeds), [str(slot) for slot in slots])
    return [slots[place] for place in order.tolist()]
