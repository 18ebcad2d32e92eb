"""Why a head looks where it looks: its score at a query and a key, by what is at the two.

With the norms in front of attention and of its queries and keys held, the score before softcap and
mask is bilinear in what arrives at the query and at the key.  It is taken apart by one side, with
the other as it was, or by pairs:

    score = Σ_component weight + constant                       by the query's, and by the key's
    score = Σ_i Σ_j pair[i, j]                                  components i at query, j at key

What is compared is one key with others: of a score less the mean score of its competitors, each
weighted by the attention that it gets, what every key shares drops out:

    log odds = log(A[key] / A[competitors]) = score - mean of theirs - entropy of theirs
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from graphs.core.brief import Brief
from graphs.core.nodes import NodeTable


def is_context(nodes: NodeTable, n_prefix: int) -> Bool[ndarray, " component"]:
    """Which components are there whatever the prompt says: at the prefix, or at every position."""
    return nodes.pos < n_prefix  # constants have no position


@dataclass(frozen=True, repr=False)
class Side(Brief):
    """What arrives at a query, or at keys."""

    weight: Float[ndarray, " component"]  # part of the score, norms held
    running: Float[ndarray, " component"]  # part of its change, to first order, with norms running
    constant: float  # part that comes from biases of norms and projections


@dataclass(frozen=True, repr=False)
class Parts(Brief):
    """A number that depends on a query and on keys, taken apart by either side."""

    value: float
    at_query: Side
    at_keys: Side

    @property
    def miss(self) -> float:
        """What the parts of a side lack of the value, at most, over the sum of their sizes."""

        def of(side: Side) -> float:
            size = float(np.abs(side.weight).sum()) + abs(side.constant)
            return abs(float(side.weight.sum()) + side.constant - self.value) / (size or 1.0)

        return max(of(self.at_query), of(self.at_keys))


@dataclass(frozen=True, repr=False)
class AttentionScore(Brief):
    """The score of one key at one query, by one head."""

    layer: int
    head: int
    query: int  # position
    key: int
    score: Parts  # before softcap and mask
    odds: Parts | None  # capped score less the mean of its competitors; None: there are none
    scores: Float[ndarray, " pos"]  # of all keys
    attention: Float[ndarray, " pos"]  # what the softmax gives all keys
    competitors: Float[ndarray, " pos"]  # share of each key in the mean; 0: does not compete
    nodes: NodeTable  # the components: all that enters the residual stream below the layer

    @property
    def explained(self) -> Parts:
        """The difference from what competes, or the score if nothing does."""
        return self.odds or self.score

    @property
    def log_odds(self) -> float | None:
        """log(attention to the key / attention to its competitors), from the recorded pattern."""
        rivals = float(self.attention[self.competitors > 0].sum())
        own = float(self.attention[self.key])
        return float(np.log(own / rivals)) if own > 0 and rivals > 0 else None

    @property
    def entropy(self) -> float:
        """Of the competitors' shares, in nats."""
        shares = self.competitors[self.competitors > 0]
        return float(-(shares * np.log(shares)).sum())


@dataclass(frozen=True, repr=False)
class ScorePairs(Brief):
    """The strongest pairs of a score; what is context on either side counts as one component."""

    query: Int[ndarray, " pair"]  # component at the query; -1: context
    key: Int[ndarray, " pair"]
    weight: Float[ndarray, " pair"]
    value: float  # sum of all pairs: the score
    share: float | None  # of the sizes of all pairs; None: too many to add up
    energy: float  # share of the squares of all pairs
    singular_values: Float[ndarray, " rank"]  # of the matrix of all pairs, largest first
