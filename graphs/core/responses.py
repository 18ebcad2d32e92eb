"""Responses: what a graph knows of what it holds, to predict what happens where that runs.

Norms.  A change δ of the residual x that a norm reads changes what it divides by, σ.  With x and δ
centred as the norm centres them, d their width, and σ² = |x|² / d + ε:

    new σ² = σ² + (2 x·δ + |δ|²) / d

Row 0 of a norm has the covector x: its weights, times how much each node changes, sum to x·δ.  The
final norm has more rows, of K orthonormal covectors q drawn at random.  They estimate the part of
|δ|² that is not along x from what they see of it, with n the dimensions in which δ lies (d, or
d - 1 if it is centred); with K = n it is exact:

    ε = δ - (x·δ) x / |x|²        |δ|² ≈ (x·δ)² / |x|² + n / K · Σ_q (q·ε)²

Whatever an attention's norm divides by scales what flows through this attention from its position:
`flows` has how much of each value that is.

Gates.  A neuron's row is of its activation with factors frozen; the row of its gate is of what its
activation function is of.

None of these rows is a target or has a seed, and no score of a graph depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field
from scipy.sparse import csr_array

from graphs.core.brief import Brief
from graphs.core.nodes import RESPONSE_KINDS, NodeKind, NodeTable
from graphs.core.records import Record

Nonlinearity = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "silu"]
Before = Literal["attention", "mlp", "unembedding"]


class FrozenNorm(Record):
    """A norm at one position, held at its value on the prompt."""

    before: Before  # what it is in front of
    layer: int = Field(ge=0)  # n_layers for the final norm
    pos: int = Field(ge=0)
    mean_square: float = Field(gt=0.0)  # square of what it divides by, epsilon included
    width: int = Field(ge=1)  # over which it takes the mean
    dimensions: int = Field(ge=1)  # in which changes lie: one less than the width if centred


class NeuronForm(Record):
    """What the neurons of a model compute."""

    nonlinearity: Nonlinearity
    gated: bool  # whether the activation function's value is multiplied by another input


@dataclass(frozen=True, repr=False)
class Responses(Brief):
    """Rows over the nodes of a graph, and what predictions need beside them."""

    norms: tuple[FrozenNorm, ...]
    neurons: NeuronForm | None  # whose gates have rows, if features are neurons
    # Part of a value that no norm scales, of nodes of the graph and of rows; nan: no norm, unknown.
    constant: Float[ndarray, " node_and_row"]
    threshold: Float[ndarray, " node"]  # value at or below which a feature is off; nan: none
    nodes: NodeTable  # of the rows: norms (row 0 has the covector x) and gates
    weights: csr_array  # weights[row, node of the graph]
    dropped: Float[ndarray, " row"]  # signed sum of the weights left out of each row
    dropped_absolute: Float[ndarray, " row"]  # sum of their sizes
    # What flows into nodes of the graph, then into rows, behind each row of kind attention_norm.
    flows: Float[ndarray, "node_and_row attention_norm"]

    def rows_of(self, norm: FrozenNorm) -> Int[ndarray, " row"]:
        """The rows of a norm, the one of x first."""
        kind = NodeKind.ATTENTION_NORM if norm.before == "attention" else NodeKind.NORM
        nodes = self.nodes
        same = (nodes.kind == kind) & (nodes.layer == norm.layer) & (nodes.pos == norm.pos)
        rows = np.flatnonzero(same)
        return rows[np.argsort(nodes.index[rows])]

    def require_consistent(self) -> None:
        """Raises ValueError if the parts do not fit together, as in a damaged file."""
        count, n_nodes = len(self.nodes), len(self.threshold)
        if not np.all(self.nodes.is_kind(*RESPONSE_KINDS)):
            raise ValueError("A row of a response belongs to a node of another kind.")
        if self.nodes.has_duplicates():
            raise ValueError("Two rows of responses have the same id.")
        for norm in self.norms:
            if not len(self.rows_of(norm)):
                raise ValueError(
                    f"The header names the norm of layer {norm.layer} at position {norm.pos}, "
                    "which has no row."
                )
        expected = {
            "constant": (n_nodes + count,),
            "weights": (count, n_nodes),
            "dropped": (count,),
            "dropped_absolute": (count,),
            "flows": (n_nodes + count, int(self.nodes.is_kind(NodeKind.ATTENTION_NORM).sum())),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(
                    f"{name} of responses must have shape {shape}, has {getattr(self, name).shape}."
                )
        numbers = (self.weights.data, self.flows, self.dropped, self.dropped_absolute)
        with np.errstate(over="ignore"):
            totals = [float(np.abs(one).sum(dtype=np.float64)) for one in numbers]
        if not np.all(np.isfinite(totals)):
            raise ValueError(
                "A weight or flow of responses is not finite, or a sum of weights overflows."
            )
        if np.any(np.isinf(self.constant)) or np.any(np.isinf(self.threshold)):
            raise ValueError("A constant or threshold is infinite.")

    def take(self, nodes: Int[ndarray, " kept"]) -> Responses:
        """The same rows over these nodes of the graph; lost weights are added to `dropped`."""
        kept, whole = csr_array(self.weights[:, nodes]), self.weights.astype(np.float64)
        lost = whole.sum(axis=1) - whole[:, nodes].sum(axis=1)
        lost_absolute = abs(whole).sum(axis=1) - abs(whole[:, nodes]).sum(axis=1)
        both = np.concatenate([nodes, np.arange(len(self.threshold), len(self.constant))])
        return replace(
            self,
            constant=self.constant[both],
            threshold=self.threshold[nodes],
            weights=kept,
            dropped=self.dropped + lost,
            dropped_absolute=np.maximum(self.dropped_absolute + lost_absolute, 0.0),
            flows=self.flows[both],
        )
