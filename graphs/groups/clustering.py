"""Clustering: greedy merging of groups, while it gains or until few enough are left.

What all groups are worth is the sum of the gains of all pairs in one group, and of every member's
own worth.  A union of two groups may gain; a group that is given up loses all that it is worth.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


class Merger:
    """Groups that are merged as long as that makes no cycle; first each member is one."""

    def __init__(
        self,
        gain: Float[ndarray, "group group"],
        feeds: Bool[ndarray, "source target"],
        worth: Float[ndarray, " group"],  # of each member alone
    ) -> None:
        self.members = [[number] for number in range(len(gain))]
        self.worth = worth.copy()
        self.fixed: list[int] = []
        self.gain, self.feeds = gain, feeds
        np.fill_diagonal(self.gain, -np.inf)
        self.open = self.gain.copy()  # without pairs that would make a cycle
        self.near = [np.flatnonzero(np.isfinite(row)) for row in gain]  # candidates for merging
        self.before = _ancestors(feeds)  # before[group, other]: a path leads from other to group
        self.best = np.zeros(len(gain), dtype=np.int64)  # with which other it gains most,
        self.value = np.full(len(gain), -np.inf)  # and how much

    def fix(self, group: Int[ndarray, " _member"]) -> None:
        """Merge these into a group that is not changed any more."""
        for other in group[1:].tolist():
            self._merge(int(group[0]), other)
        for gains in (self.gain, self.open):
            gains[group] = gains[:, group] = -np.inf
        self.fixed += group[:1].tolist()

    def run(self, at_most: int | None = None) -> list[list[int]]:
        """Merge, and return the members of all groups that were not fixed, `at_most` so many."""
        self._look(np.arange(len(self.open)))
        while len(self.value) and self.value.max() > 0:
            self._merge_best()
        for group in self.fixed:
            self._forget(group)
        if at_most is not None:
            self._reduce(at_most)
        return [members for members in self.members if members]

    def _reduce(self, at_most: int) -> None:
        """Merge or give up what costs least until there are few enough groups."""
        left = sum(bool(members) for members in self.members)
        while left > at_most:
            weakest = int(self.worth.argmin())
            if -self.value.max() >= self.worth[weakest]:
                self._give_up(weakest)
                left -= 1
            else:
                left -= self._merge_best()

    def _give_up(self, group: int) -> None:
        self._forget(group)
        for gains in (self.gain, self.open):
            gains[group] = gains[:, group] = -np.inf
        self._look(np.append(np.flatnonzero(self.best == group), group))

    def _forget(self, group: int) -> None:
        self.members[group] = []
        self.worth[group] = np.inf  # of what is left, the weakest is looked for

    def _merge_best(self) -> bool:
        """Merge the pair that gains most, or rule it out where that would make a cycle."""
        one = int(self.value.argmax())
        other = int(self.best[one])
        if self._would_cycle(one, other):
            self.open[one, other] = self.open[other, one] = -np.inf
            self._look(np.array([one, other]))
            return False
        self._merge(one, other)
        changed = np.flatnonzero((self.best == one) | (self.best == other))
        # For the others only the gain with the merged group changed.
        gain = self.open[:, one]
        better = (gain > self.value) | ((gain == self.value) & (one < self.best))
        self.best[better], self.value[better] = one, gain[better]
        self._look(np.union1d(changed, [one, other]))
        return True

    def _look(self, groups: Int[ndarray, " changed"]) -> None:
        """Find again with which other each of these groups gains most, the first one of several."""
        if len(groups):
            self.best[groups] = self.open[groups].argmax(1)
            self.value[groups] = self.open[groups, self.best[groups]]

    def _would_cycle(self, one: int, other: int) -> bool:
        """Whether a path leads from one to the other through a third."""
        return bool(
            np.any(self.feeds[one] & self.before[other])
            or np.any(self.feeds[other] & self.before[one])
        )

    def _merge(self, one: int, other: int) -> None:
        """Merge `other` into `one`."""
        self.members[one] += self.members[other]
        self.worth[one] += self.worth[other] + self.gain[one, other]
        self._forget(other)
        near = np.append(self.near[one], one)
        self.gain[one] += self.gain[other]
        self.gain[near, one] = self.gain[one, near]
        self.gain[one, one] = -np.inf
        self.open[one] = self.gain[one]  # a former cycle may now lie inside the group
        self.open[near, one] = self.gain[one, near]
        for gains in (self.gain, self.open):
            gains[other] = gains[near, other] = -np.inf
        for links in (self.feeds, self.before):
            links[one] |= links[other]
            links[:, one] |= links[:, other]
            links[other] = links[:, other] = False
            links[one, one] = False
        after = self.before[:, one]
        self.before[after] |= self.before[one]


def _ancestors(feeds: Bool[ndarray, "source target"]) -> Bool[ndarray, "group other"]:
    """The ancestors of each feature; features are in topological order."""
    own = np.packbits(feeds.T, axis=1)  # eight at a time
    before = np.zeros_like(own)
    for feature, sources in enumerate(feeds.T):
        above = np.bitwise_or.reduce(before[np.flatnonzero(sources)], axis=0)
        before[feature] = own[feature] | above
    return np.unpackbits(before, axis=1, count=len(feeds)).astype(bool)
