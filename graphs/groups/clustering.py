"""Clustering: greedy merging of groups, while it gains or until few enough are left.

What all groups are worth is the sum of the gains of all pairs in one group, and of every member's
own worth.  A union of two groups may gain; a group that is given up loses all that it is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

# Groups that may be merged, rising, and the gains of their pairs.
Candidates = tuple[Int[ndarray, " _near"], Float[ndarray, "_near _near"]]


class Merger:
    """Groups that are merged as long as that makes no cycle; first each member is one."""

    def __init__(
        self,
        candidates: Sequence[Candidates],  # groups of two of these are never merged
        feeds: Bool[ndarray, "source target"],
        worth: Float[ndarray, " group"],  # of each member alone
    ) -> None:
        self.members = [[number] for number in range(len(worth))]
        self.worth = worth.copy()
        self.fixed: list[int] = []
        self.feeds = feeds
        self.before = _ancestors(feeds)  # before[group, other]: a path leads from other to group
        # The best union of each group: with which one, and its gain.
        self.best, self.value = np.arange(len(worth)), np.full(len(worth), -np.inf)
        self.pairs: dict[int, _Pairs] = {}
        for near, gain in candidates:
            pairs = _Pairs(near, gain)
            self.pairs |= dict.fromkeys(near.tolist(), pairs)
            self._search(pairs, np.arange(len(near)))

    def fix(self, group: Int[ndarray, " _member"]) -> None:
        """Merge these into a group that is not changed any more."""
        rows: list[int] = group.tolist()
        for other in rows[1:]:
            self._join(rows[0], other)
        for row in rows:
            self._take_out(row)
        self.fixed += rows[:1]

    def run(self, at_most: int | None = None) -> list[list[int]]:
        """Merge, and return the members of all groups that were not fixed, `at_most` so many."""
        self._merge_while_it_gains()
        for group in self.fixed:
            self.members[group] = []
        if at_most is not None:
            self._reduce(at_most)
        return [members for members in self.members if members]

    def _merge_while_it_gains(self) -> None:
        while len(self.value) and self.value.max() > 0:
            one = int(self.value.argmax())
            self._try(one, int(self.best[one]))

    def _reduce(self, at_most: int) -> None:
        """Merge or give up what costs least until there are few enough groups."""
        left = [group for group, members in enumerate(self.members) if members]
        while len(left) > at_most:
            weakest = min(left, key=lambda group: self.worth[group])
            one = int(self.value.argmax())
            other = int(self.best[one])
            if -self.value[one] >= self.worth[weakest]:
                self.members[weakest] = []
                left.remove(weakest)
                self._take_out(weakest)
            elif self._try(one, other):
                left.remove(other)

    def _try(self, one: int, other: int) -> bool:
        """Merge `other` into `one` unless that makes a cycle; says whether they are merged."""
        pairs = self.pairs[one]
        if self._would_cycle(one, other):
            self._search(pairs, pairs.close(one, other))
            return False
        self.worth[one] += self.worth[other] + pairs.merge(one, other)
        self._join(one, other)
        self._renew(pairs, one, other)
        return True

    def _would_cycle(self, one: int, other: int) -> bool:
        """Whether a path leads from one to the other through a third."""
        return bool(
            np.any(self.feeds[one] & self.before[other])
            or np.any(self.feeds[other] & self.before[one])
        )

    def _take_out(self, group: int) -> None:
        """Merge nothing with a group any more."""
        pairs = self.pairs[group]
        pairs.take_out(group)
        self._renew(pairs, group, group)

    def _renew(self, pairs: _Pairs, one: int, other: int) -> None:
        """Find the best unions again, after gains with `one` have changed and `other` is gone."""
        near, gains = pairs.groups, pairs.open[pairs.place[one]]
        best = self.best[near]
        stale = (best == one) | (best == other) | (near == one) | (near == other)
        # For the others only the gain with the merged group changed.
        better = near[~stale & (gains > self.value[near])]
        self.best[better], self.value[better] = one, gains[np.searchsorted(near, better)]
        self._search(pairs, np.flatnonzero(stale))

    def _search(self, pairs: _Pairs, places: Int[ndarray, " some"]) -> None:
        """Find the best unions of some groups."""
        groups, gains = pairs.groups[places], pairs.open[places]
        at = gains.argmax(1)
        self.best[groups], self.value[groups] = pairs.groups[at], gains[np.arange(len(at)), at]

    def _join(self, one: int, other: int) -> None:
        """Give `one` the members and the links of `other`."""
        self.members[one] += self.members[other]
        self.members[other] = []
        for links in (self.feeds, self.before):
            links[one] |= links[other]
            links[:, one] |= links[:, other]
            links[other] = links[:, other] = False
            links[one, one] = False
        self.before[self.before[:, one]] |= self.before[one]


class _Pairs:
    """Gains of the unions of groups that may be merged."""

    def __init__(self, groups: Int[ndarray, " near"], gain: Float[ndarray, "near near"]) -> None:
        self.groups, self.gain = groups, gain
        self.place = {group: place for place, group in enumerate(groups.tolist())}
        np.fill_diagonal(self.gain, -np.inf)
        self.open = self.gain.copy()  # without pairs that would make a cycle

    def merge(self, one: int, other: int) -> float:
        """Merge `other` into `one`; the gain of that."""
        to = self.place[one]
        gained = float(self.gain[to, self.place[other]])
        self.gain[to] += self.gain[self.place[other]]
        self.gain[:, to] = self.gain[to]
        self.gain[to, to] = -np.inf
        self.open[to] = self.open[:, to] = self.gain[to]  # a former cycle may now lie inside
        self.take_out(other)
        return gained

    def close(self, one: int, other: int) -> Int[ndarray, " 2"]:
        """Refuse a pair for now; its places."""
        to, at = self.place[one], self.place[other]
        self.open[to, at] = self.open[at, to] = -np.inf
        return np.array([to, at])

    def take_out(self, group: int) -> None:
        """Refuse all pairs of a group."""
        at = self.place[group]
        for gains in (self.gain, self.open):
            gains[at] = gains[:, at] = -np.inf


def _ancestors(feeds: Bool[ndarray, "source target"]) -> Bool[ndarray, "group other"]:
    """The ancestors of each feature; features are in topological order."""
    own = np.packbits(feeds.T, axis=1)  # eight at a time
    before = np.zeros_like(own)
    for feature, sources in enumerate(feeds.T):
        above = np.bitwise_or.reduce(before[np.flatnonzero(sources)], axis=0)
        before[feature] = own[feature] | above
    return np.unpackbits(before, axis=1, count=len(feeds)).astype(bool)
