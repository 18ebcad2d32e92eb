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
from viz.paper.arrows import Arrow, drawn_arrows

Slot = tuple[int | None, ...]  # number of the box of each graph; None: it has none there


def own_slots(overview: Overview) -> list[Slot]:
    """A slot for each box of one graph, sources before targets."""
    return [(number,) for number in overview.occupied]


def shared_slots(
    first: Overview, second: Overview, counterparts: Sequence[tuple[int, int]]
) -> list[Slot]:
    """Slots of two graphs, sources before targets; the first counterparts share theirs first."""
    boxes = (first.occupied, second.occupied)
    arrows = (drawn_arrows(first).shown, drawn_arrows(second).shown)
    admitted: list[tuple[int, int]] = []
    found = _ordered(boxes, arrows, admitted)
    for one, other in counterparts:
        if one in boxes[0] and other in boxes[1]:
            try:
                found = _ordered(boxes, arrows, [*admitted, (one, other)])
            except CyclicGroups:
                continue
            admitted.append((one, other))
    return found


def _ordered(
    boxes: tuple[Sequence[int], Sequence[int]],  # numbers of those of each graph
    arrows: tuple[Sequence[Arrow], Sequence[Arrow]],
    pairs: Sequence[tuple[int, int]],
) -> list[Slot]:
    """All slots, sources before targets.  Raises CyclicGroups."""
    partner = dict(pairs)
    taken = set(partner.values())
    slots: list[Slot] = [(n, partner.get(n)) for n in boxes[0]]
    slots += [(None, n) for n in boxes[1] if n not in taken]
    feeds = np.zeros((len(slots), len(slots)))
    for side, shown in enumerate(arrows):
        at = {slot[side]: place for place, slot in enumerate(slots)}
        for arrow in shown:
            feeds[at[arrow.target], at[arrow.source]] = 1.0
    order = topological_order(csr_array(feeds), [str(slot) for slot in slots])
    return [slots[place] for place in order.tolist()]
