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

    def fix(self, group: Int[ndarray, " _member"]) -> None:
        """Merge these into a group that is not changed any more."""
        for other in group[1:].tolist():
            self._merge(int(group[0]), other)
        for gains in (self.gain, self.open):
            gains[group] = gains[:, group] = -np.inf
        self.fixed += group[:1].tolist()

    def run(self, at_most: int | None = None) -> list[list[int]]:
        """Merge, and return the members of all groups that were not fixed, `at_most` so many."""
        self._merge_while_it_gains()
        for group in self.fixed:
            self.members[group] = []
        if at_most is not None:
            self._reduce(at_most)
        return [members for members in self.members if members]

    def _merge_while_it_gains(self) -> None:
        best = self.open.argmax(1) if len(self.open) else np.zeros(0, dtype=np.int64)
        value = self.open[np.arange(len(best)), best]
        while len(value) and value.max() > 0:
            one = int(value.argmax())
            other = int(best[one])
            if self._would_cycle(one, other):
                self.open[one, other] = self.open[other, one] = -np.inf
                changed = np.array([one, other])
            else:
                self._merge(one, other)
                changed = np.flatnonzero((best == one) | (best == other))
                changed = np.union1d(changed, [one, other])
                # For the others only the gain with the merged group changed.
                better = self.open[:, one] > value
                best[better], value[better] = one, self.open[better, one]
            best[changed] = self.open[changed].argmax(1)
            value[changed] = self.open[changed, best[changed]]

    def _reduce(self, at_most: int) -> None:
        """Merge or give up what costs least until there are few enough groups."""
        left = [group for group, members in enumerate(self.members) if members]
        while len(left) > at_most:
            weakest = min(left, key=lambda group: self.worth[group])
            among = self.open[np.ix_(left, left)]
            one, other = (left[int(at)] for at in np.unravel_index(among.argmax(), among.shape))
            if -self.open[one, other] >= self.worth[weakest]:
                self.members[weakest] = []
                left.remove(weakest)
            elif self._would_cycle(one, other):
                self.open[one, other] = self.open[other, one] = -np.inf
            else:
                self._merge(one, other)
                left.remove(other)

    def _would_cycle(self, one: int, other: int) -> bool:
        """Whether a path leads from one to the other through a third."""
        return bool(
            np.any(self.feeds[one] & self.before[other])
            or np.any(self.feeds[other] & self.before[one])
        )

    def _merge(self, one: int, other: int) -> None:
        """Merge `other` into `one`."""
        self.members[one] += self.members[other]
        self.members[other] = []
        self.worth[one] += self.worth[other] + self.gain[one, other]
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
