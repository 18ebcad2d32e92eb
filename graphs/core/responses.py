"""Responses: what a graph knows of norms, which it holds, to predict what happens where they run.

A change δ of the residual x that a norm reads changes what it divides by, σ.  With x and δ centred
as the norm centres them, d their width, and σ² = |x|² / d + ε:

    new σ² = σ² + (2 x·δ + |δ|²) / d

Row 0 of a norm has the covector x: its weights, times how much each node changes, sum to x·δ.  The
other rows have K orthonormal covectors q, drawn at random orthogonal to x, and estimate the rest of
|δ|² from what they see of it, with n the dimensions in which δ lies (d, or d - 1 if it is centred):

    |δ|² ≈ (x·δ)² / |x|² + (n - 1) / K · Σ_q (q·δ)²

Norm rows are no targets: they have no seed, and no score of a graph depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from graphs.core.brief import Brief
from graphs.core.nodes import NodeKind, NodeTable
from graphs.core.provenance import FrozenNorm


@dataclass(frozen=True, repr=False)
class Responses(Brief):
    """Norm rows over the nodes of a graph.  Raises ValueError if the parts are inconsistent."""

    constant: Float[ndarray, " node"]  # part of a value that no norm scales; nan: no norm, unknown
    nodes: NodeTable  # norm:LAYER/0@POS has the covector x, higher numbers those orthogonal to it
    weights: csr_array  # weights[norm row, node of the graph]
    dropped: Float[ndarray, " row"]  # signed sum of the weights left out of each row
    dropped_absolute: Float[ndarray, " row"]  # sum of their sizes

    def __post_init__(self) -> None:
        count = len(self.nodes)
        if not np.all(self.nodes.is_kind(NodeKind.NORM)):
            raise ValueError("A norm row belongs to a node of another kind.")
        if self.nodes.has_duplicates():
            raise ValueError("Two norm rows have the same id.")
        shapes = (self.weights.shape, self.dropped.shape, self.dropped_absolute.shape)
        if shapes != ((count, len(self.constant)), (count,), (count,)):
            raise ValueError(f"{count} norm rows have arrays of the shapes {shapes}.")

    def rows_of(self, norm: FrozenNorm) -> Int[ndarray, " row"]:
        """The rows of a norm, the one of x first."""
        nodes = self.nodes
        rows = np.flatnonzero((nodes.layer == norm.layer) & (nodes.pos == norm.pos))
        return rows[np.argsort(nodes.index[rows])]

    def take(self, nodes: Int[ndarray, " kept"]) -> Responses:
        """The same rows over these nodes of the graph; lost weights are added to `dropped`."""
        kept = csr_array(self.weights[:, nodes])
        lost = self.weights.sum(axis=1) - kept.sum(axis=1)
        lost_absolute = abs(self.weights).sum(axis=1) - abs(kept).sum(axis=1)
        return replace(
            self,
            constant=self.constant[nodes],
            weights=kept,
            dropped=self.dropped + lost,
            dropped_absolute=np.maximum(self.dropped_absolute + lost_absolute, 0.0),
        )
