"""Grouping: features that play one role on this prompt, by correlation clustering.

Groups maximise

    Σ over pairs in one group   (similarity[i, j] − tightness) · size[i] · size[j]

where size is influence: pairs more similar than `tightness` belong together, and influential
features matter more.  The search is greedy: starting from single features, the two groups whose
union gains most are merged, until no union gains without making a cycle in the collapsed graph.

similarity is a mean, weighted by `GroupSettings`, of the evidence that is known of both features:

    profile   cosine of all edges in and out, as shares of influence
    decoders  cosine of decoder rows, 0 if it is negative
    words     overlap of the words of their labels, or of the tokens that they promote
    layers    1 − distance / band, 0 beyond the band

Decoders are not in a graph file but in a profile of the dictionary (`graphs.comparison.profiles`).

Features at different positions are never grouped: they represent different tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.analysis.influence import edge_influence, graph_shares, influence, influence_shares
from graphs.comparison.profiles import Profile
from graphs.comparison.similarities import cosines, word_overlap
from graphs.core.annotations import Group
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.errors import HeadwaterError


class TooManyFeatures(HeadwaterError):
    """A graph has too many features to compare them all with each other."""


@dataclass(frozen=True)
class GroupSettings:
    """How features are compared.  Raises ValueError for numbers out of range."""

    tightness: float = 0.7  # similarity above which a pair gains
    profile: float = 0.5  # weights of the kinds of evidence
    decoders: float = 0.3
    words: float = 0.3
    layers: float = 0.2
    band: int = 6  # layers; `layers` is 0 for features further apart

    def __post_init__(self) -> None:
        if not 0.0 <= self.tightness <= 1.0:
            raise ValueError(f"tightness must be from 0 to 1, got {self.tightness}.")
        weights = (self.profile, self.decoders, self.words, self.layers)
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"Weights of evidence must not be negative or all 0, got {weights}.")
        if self.band < 1:
            raise ValueError(f"band must be at least 1, got {self.band}.")


DEFAULTS = GroupSettings()
MOST_FEATURES = 5000  # more than a trace expands by default; memory grows with the square


def find_groups(
    graph: AttributionGraph,
    settings: GroupSettings = DEFAULTS,
    own: Sequence[Int[ndarray, " _member"]] = (),
    profile: Profile | None = None,
) -> list[Int[ndarray, " _member"]]:
    """Rows of groups of two or more features, the group with most influence first.

    The user's `own` groups stay as they are, and no group makes a cycle with them.  `profile` is of
    the graph's dictionary and gives its decoder rows.
    Raises TooManyFeatures for a graph of more than MOST_FEATURES.
    """
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    if len(rows) > MOST_FEATURES:
        raise TooManyFeatures(
            f"Grouping compares up to {MOST_FEATURES:,} features, this graph has "
            f"{len(rows):,}: prune it first."
        )
    size = influence(graph)
    gain = similarity(graph, rows, settings, profile) - settings.tightness
    gain *= size[rows, None] * size[rows]
    gain[graph.nodes.pos[rows, None] != graph.nodes.pos[rows]] = -np.inf
    merger = _Merger(gain, _feeds(graph, rows))
    for group in own:
        merger.fix(np.flatnonzero(np.isin(rows, group)))
    groups = [rows[members] for members in merger.run() if len(members) > 1]
    return sorted(groups, key=lambda group: (-float(size[group].sum()), int(group[0])))


def named_groups(
    graph: AttributionGraph, groups: Sequence[Int[ndarray, " _member"]]
) -> tuple[Group, ...]:
    """Groups of rows as annotations, named after their most influential member."""
    size = influence(graph)
    return tuple(
        Group(
            name=_name(graph, int(rows[size[rows].argmax()])),
            members=tuple(str(graph.nodes[int(row)]) for row in rows),
            automatic=True,
        )
        for rows in groups
    )


def similarity(
    graph: AttributionGraph,
    rows: Int[ndarray, " feat"],
    settings: GroupSettings = DEFAULTS,
    profile: Profile | None = None,
) -> Float[ndarray, "feat feat"]:
    """Similarity of features, from 0 to 1; evidence that is not known of both has no weight."""
    layer = graph.nodes.layer[rows].astype(np.float64)
    near = np.clip(1.0 - np.abs(layer[:, None] - layer) / settings.band, 0.0, 1.0)
    total = settings.profile * _profiles(graph, rows) + settings.layers * near
    weight = np.full_like(total, settings.profile + settings.layers)
    labels = [graph.label(int(row)) for row in rows]
    overlap, both = word_overlap(labels, labels)
    total += settings.words * overlap * both
    weight += settings.words * both
    if profile is not None and profile.decoder is not None and len(profile.decoder):
        cosine, known = _decoders(graph, rows, profile, profile.decoder)
        total += settings.decoders * cosine * known
        weight += settings.decoders * known
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _name(graph: AttributionGraph, row: int) -> str:
    description, tokens = graph.description(row), graph.output_tokens.get(row, ())
    if description is not None and description.label:
        return description.label
    return f"say {tokens[0].strip() or tokens[0]!r}" if tokens else str(graph.nodes[row])


def _decoders(
    graph: AttributionGraph,
    rows: Int[ndarray, " feat"],
    profile: Profile,
    decoder: Float[ndarray, "row d_model"],
) -> tuple[Float[ndarray, "feat feat"], Bool[ndarray, "feat feat"]]:
    """Cosine of decoder rows, not below 0, and whether both rows are known."""
    place = profile.rows(graph.nodes.layer[rows], graph.nodes.index[rows])
    vectors = decoder[np.maximum(place, 0)].astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    known = (place >= 0) & (length[:, 0] > 0)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return np.maximum(unit @ unit.T, 0.0), known[:, None] & known


def _profiles(graph: AttributionGraph, rows: Int[ndarray, " feat"]) -> Float[ndarray, "feat feat"]:
    """Mean cosine of features' inputs and of their outputs."""
    along = edge_influence(graph, influence_shares(graph))
    sides = (graph_shares(graph)[rows], csr_array(along.T)[rows])
    inputs, outputs = (cosines(side, side) for side in map(csr_array, sides))
    return (inputs + outputs) / 2


def _feeds(graph: AttributionGraph, rows: Int[ndarray, " feat"]) -> Bool[ndarray, "source target"]:
    """Whether a feature has an edge to another."""
    inner = csr_array(graph.weights[rows][:, rows])
    return inner.toarray().T != 0


class _Merger:
    """Greedy merging of groups while it gains and makes no cycle."""

    def __init__(
        self, gain: Float[ndarray, "group group"], feeds: Bool[ndarray, "source target"]
    ) -> None:
        self.members = [[number] for number in range(len(gain))]
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

    def run(self) -> list[list[int]]:
        """Merge, and return the members of all groups that were not fixed."""
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
        for group in self.fixed:
            self.members[group] = []
        return [members for members in self.members if members]

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
