"""Grouping: features that play one role on this prompt, by correlation clustering.

Groups maximise

    Σ over pairs in one group   (similarity[i, j] − tightness) · size[i] · size[j]

where size is influence: pairs more similar than `tightness` belong together, and influential
features matter more.  The search is greedy: starting from single features, the two groups whose
union gains most are merged, until no union gains without making a cycle in the collapsed graph.

With a budget of groups, merging goes on where it costs least: two groups whose union loses least of
the sum above, or one that is given up, which loses what it adds to the sum itself.

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

from graphs.analysis.influence import graph_shares, influence, influence_shares
from graphs.comparison.profiles import Profile
from graphs.comparison.similarities import cosines, word_overlap
from graphs.core.annotations import Group
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import NodeKind
from graphs.errors import HeadwaterError
from graphs.groups.clustering import Candidates, Merger
from graphs.naming.group_names import group_names
from graphs.naming.names import Names


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
    at_most: int | None = None,
) -> list[Int[ndarray, " _member"]]:
    """Rows of groups of two or more features, the group with most influence first.

    The user's `own` groups stay as they are, and no group makes a cycle with them.  `profile` is of
    the graph's dictionary and gives its decoder rows.  With `at_most` there are no more groups
    than that beside the user's own, and a feature may be a group alone.
    Raises TooManyFeatures for a graph of more than MOST_FEATURES, ValueError for a budget below 0.
    """
    if at_most is not None and at_most < 0:
        raise ValueError(f"at_most must be 0 or more, got {at_most}.")
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    if len(rows) > MOST_FEATURES:
        raise TooManyFeatures(
            f"Grouping compares up to {MOST_FEATURES:,} features, this graph has "
            f"{len(rows):,}: prune it first."
        )
    size = influence(graph)
    sides, pos = _sides(graph, size), graph.nodes.pos[rows]
    candidates: list[Candidates] = []
    for near in (np.flatnonzero(pos == one) for one in np.unique(pos)):
        alike = _similarity(graph, rows[near], settings, profile, sides)
        both = size[rows[near], None] * size[rows[near]]
        candidates.append((near, (alike - settings.tightness) * both))
    merger = Merger(candidates, _feeds(graph, rows), (1 - settings.tightness) * size[rows] ** 2 / 2)
    for group in own:
        merger.fix(np.flatnonzero(np.isin(rows, group)))
    least = 2 if at_most is None else 1
    groups = [rows[members] for members in merger.run(at_most) if len(members) >= least]
    return sorted(groups, key=lambda group: (-float(size[group].sum()), int(group[0])))


def named_groups(
    graph: AttributionGraph, groups: Sequence[Int[ndarray, " _member"]]
) -> tuple[Group, ...]:
    """Groups of rows as annotations, named by what their members have in common."""
    names = group_names(Names(graph), groups)
    return tuple(
        Group(
            name=name,
            members=tuple(str(graph.nodes[int(row)]) for row in rows),
            automatic=True,
        )
        for name, rows in zip(names, groups, strict=True)
    )


def similarity(
    graph: AttributionGraph,
    rows: Int[ndarray, " feat"],
    settings: GroupSettings = DEFAULTS,
    profile: Profile | None = None,
) -> Float[ndarray, "feat feat"]:
    """Similarity of features, from 0 to 1; evidence that is not known of both has no weight."""
    return _similarity(graph, rows, settings, profile, _sides(graph, influence(graph)))


Sides = tuple[csr_array, csr_array]  # by node, its edges in and out as shares of influence


def _similarity(
    graph: AttributionGraph,
    rows: Int[ndarray, " feat"],
    settings: GroupSettings,
    profile: Profile | None,
    sides: Sides,
) -> Float[ndarray, "feat feat"]:
    layer = graph.nodes.layer[rows].astype(np.float64)
    near = np.clip(1.0 - np.abs(layer[:, None] - layer) / settings.band, 0.0, 1.0)
    total = settings.profile * _profiles(sides, rows) + settings.layers * near
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


def _sides(graph: AttributionGraph, size: Float[ndarray, " node"]) -> Sides:
    inputs = graph_shares(graph)
    along = inputs.data * np.repeat(influence_shares(graph, size), np.diff(inputs.indptr))
    outputs = csr_array((along, inputs.indices, inputs.indptr), shape=inputs.shape).T
    return inputs, csr_array(outputs)


def _profiles(sides: Sides, rows: Int[ndarray, " feat"]) -> Float[ndarray, "feat feat"]:
    """Mean cosine of features' inputs and of their outputs."""
    inputs, outputs = (cosines(side, side) for side in (csr_array(one[rows]) for one in sides))
    return (inputs + outputs) / 2


def _feeds(graph: AttributionGraph, rows: Int[ndarray, " feat"]) -> Bool[ndarray, "source target"]:
    """Whether a feature has an edge to another."""
    inner = csr_array(graph.weights[rows][:, rows])
    return inner.toarray().T != 0
