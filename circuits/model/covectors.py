"""Covectors: what a row of the graph starts from."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Covectors:
    """Targets as covectors on the residual that they read."""

    layer: Int[Tensor, " row"]  # block whose MLP reads that residual; n_layers: the final one
    pos: Int[Tensor, " row"]
    covector: Float[Tensor, "row d_model"]
    weight: Float[Tensor, " row"]  # seed of influence; 0 for features

    def take(self, rows: Int[Tensor, " kept"]) -> Covectors:
        """Only these rows, in this order."""
        return Covectors(self.layer[rows], self.pos[rows], self.covector[rows], self.weight[rows])
