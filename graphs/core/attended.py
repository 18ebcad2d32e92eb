"""What a graph's file keeps of attention: the heads of its edges, and why heads look where they do.

    weight of an edge = bypass + Σ part of its strongest heads + rest

as in `graphs.attention.edge_heads`: a part goes through its head before any other.  A look is one
head at one query: its pattern there, and why the key that it carries most from is looked at, as in
`graphs.attention.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field, model_validator

from graphs.core.brief import Brief
from graphs.core.nodes import NodeName
from graphs.core.records import Record

KEPT_LOOKS = 24  # per graph
KEPT_HEADS = 5  # per edge: 80 % of the parts' sizes, in the median, of a model of 72 heads


@dataclass(frozen=True, repr=False)
class EdgeParts(Brief):
    """The strongest heads of edges: 56 bytes per edge at most, with `KEPT_HEADS` of them."""

    target: Int[ndarray, " edge"]  # rows of the graph; edges ascend by target, then source
    source: Int[ndarray, " edge"]
    bypass: Float[ndarray, " edge"]  # through no attention
    rest: Float[ndarray, " edge"]  # through all other heads
    layer: Int[ndarray, "edge kept"]  # strongest first; -1: there is none
    head: Int[ndarray, "edge kept"]
    part: Float[ndarray, "edge kept"]  # 0 where there is none

    def require_consistent(self, n_nodes: int) -> None:
        """Raises ValueError if the parts do not fit together, as in a damaged file."""
        key = edge_keys(self.target, self.source)
        ends = np.concatenate([self.target, self.source])
        if len(ends) and not 0 <= ends.min() <= ends.max() < n_nodes:
            raise ValueError("An edge with heads is outside the graph.")
        if np.any(np.diff(key) <= 0):
            raise ValueError("Edges with heads must ascend by target and source.")
        if np.any((self.layer < 0) != (self.head < 0)):
            raise ValueError("A head of an edge has no layer, or a layer no head.")
        if not all(np.all(np.isfinite(one)) for one in (self.bypass, self.rest, self.part)):
            raise ValueError("What a head carries along an edge is not finite.")

    def places(
        self, target: Int[ndarray, " asked"], source: Int[ndarray, " asked"]
    ) -> Int[ndarray, " asked"]:
        """The places of edges; -1: not known."""
        key, wanted = edge_keys(self.target, self.source), edge_keys(target, source)
        place = np.searchsorted(key, wanted)
        return np.where(np.append(key, -1)[place] == wanted, place, -1)

    def heads(self, edge: int) -> list[tuple[int, int, float]]:
        """Layer, head and part of an edge's strongest heads, strongest first."""
        known = self.layer[edge] >= 0
        columns = (column[edge][known].tolist() for column in (self.layer, self.head, self.part))
        return list(zip(*columns, strict=True))

    def take(self, nodes: Int[ndarray, " kept"]) -> EdgeParts:
        """Only edges between these nodes, which ascend, by their new rows."""
        kept = np.isin(self.target, nodes) & np.isin(self.source, nodes)
        some = self._some(kept)
        ends = (np.searchsorted(nodes, end).astype(end.dtype) for end in (some.target, some.source))
        return EdgeParts(*ends, *list(vars(some).values())[2:])

    def among(self, target: Int[ndarray, " some"], source: Int[ndarray, " some"]) -> EdgeParts:
        """Only those of these edges."""
        present = edge_keys(target, source)
        return self._some(np.isin(edge_keys(self.target, self.source), present))

    def _some(self, kept: ndarray) -> EdgeParts:
        return EdgeParts(*(column[kept] for column in vars(self).values()))

    @staticmethod
    def joined(parts: Sequence[EdgeParts]) -> EdgeParts:
        """Several one after the other."""
        columns = zip(*(vars(one).values() for one in parts), strict=True)
        return EdgeParts(*map(np.concatenate, columns))


def edge_keys(target: ndarray, source: ndarray) -> Int[ndarray, " edge"]:
    """A number for each edge, which ascends by target, then source."""
    return (target.astype(np.int64) << 32) + source.astype(np.int64)


class LookPart(Record):
    """What one component at the query, or at the key, does for a look."""

    node: NodeName | None  # None: what is there whatever the prompt says
    label: str
    part: float  # of the difference from what competes with the key, norms held
    running: float  # of its change, to first order, with the norms of the layer running


class LookPair(Record):
    """What a component at the query and one at the key do together."""

    query: NodeName | None
    key: NodeName | None
    part: float  # of the score


class Look(Record):
    """One head at one query: where it looks, and why."""

    layer: int = Field(ge=0)
    head: int = Field(ge=0)
    query: int = Field(ge=0)  # position
    carries: float  # share of all influence that it writes into nodes at the query
    attention: tuple[float, ...]  # what the softmax gives the keys up to the query
    key: int = Field(ge=0)  # that it carries most from
    score: float  # of the key, before softcap and mask
    difference: float | None  # from the mean of its competitors; None: there are none
    log_odds: float | None  # log(attention to the key / attention to its competitors)
    at_query: tuple[LookPart, ...]  # strongest first
    at_keys: tuple[LookPart, ...]
    pairs: tuple[LookPair, ...] = ()  # the strongest; none are known of most looks
    pairs_share: float | None = None  # of the sizes of all pairs

    @model_validator(mode="after")
    def _fits(self) -> Look:
        if not self.key <= self.query == len(self.attention) - 1:
            raise ValueError(
                f"A look from {self.query} at {self.key} has {len(self.attention)} keys."
            )
        return self

    @property
    def name(self) -> str:
        """The head at its query, as head nodes are named."""
        return f"head:{self.layer}/{self.head}@{self.query}"


@dataclass(frozen=True, repr=False)
class Attended(Brief):
    """Attention of a graph, taken apart."""

    edges: EdgeParts | None  # None in graphs with head nodes, whose edges cross none
    looks: tuple[Look, ...]  # that carry most first

    def require_inside(self, n_pos: int) -> None:
        """Raises ValueError for a look at a position outside the prompt."""
        outside = [look.name for look in self.looks if look.query >= n_pos]
        if outside:
            raise ValueError(f"{outside[0]} is at a position outside the prompt.")

    def take(self, nodes: Int[ndarray, " kept"]) -> Attended:
        """Of these nodes, which ascend, by their new rows."""
        return Attended(self.edges and self.edges.take(nodes), self.looks)

    def among(self, target: Int[ndarray, " some"], source: Int[ndarray, " some"]) -> Attended:
        """Of these edges."""
        return Attended(self.edges and self.edges.among(target, source), self.looks)


class AttentionReport(Record):
    """What removing features takes from log odds of attention, by pairs and one at a time."""

    entries: int = Field(ge=1)  # of patterns: those that carry most into the strongest target
    pairs: int = Field(ge=1)  # named by scores: one feature leaves the query, the other the key
    drop: float  # mean, of log(attention to the key / attention to its competitors)
    random_pairs: int = Field(ge=1)  # of features that are active at the same query and key
    random_drop: float  # mean
    random_sd: float = Field(ge=0.0)
    null_probability: float = Field(  # share of random pairs that take away at least as much
        ge=0.0, le=1.0, validation_alias="chance", serialization_alias="chance"
    )
    singles: int = Field(ge=0)  # features that are removed alone, from query or keys
    rank_correlation: float | None  # Spearman's, of their predicted and measured changes
