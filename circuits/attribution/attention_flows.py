"""Attention flows: how much of each row goes through a layer's attention from each position.

With c the covector of a row above attention, and x the residual that enters it,

    flow[row, layer, pos] = (what attention's transpose adds to c at pos) · x[pos]

is what the row's target gets from the values at this position.  Biases of the values are not part
of it.  If the norm in front of attention divides x by something else, the flow changes in
proportion.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sweep import Crossing
from circuits.machine import in_float64, moved
from circuits.recording.record import entering_attention


class BlockFlows(Crossing):
    """The flows of the rows of one block, from the first swept position on."""

    def __init__(self, entering: list[Float[Tensor, "pos d_model"]], n_rows: int) -> None:
        self.entering = entering
        self.values = entering[0].new_zeros(n_rows, len(entering), len(entering[0]))
        self.before = self.values[:0]  # what was above the attention that is crossed

    def above(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """As `Crossing`."""
        del layer
        self.before = covector.clone()

    def below(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """As `Crossing`."""
        added, n_pos = covector - self.before, covector.shape[1]
        flow = torch.einsum("rpd,pd->rp", added, self.entering[layer][:n_pos])
        self.values[: len(added), layer, :n_pos] = moved(flow, self.values.device)


class AttentionFlows:
    """The flows of all rows that are swept, collected in any order."""

    def __init__(self, local: LocalReplacement, first: int) -> None:
        layers = range(local.frozen.n_layers)
        self.entering = [
            entering_attention(local.frozen, local.recording, layer)[first:] for layer in layers
        ]
        self.found: list[tuple[ndarray, Tensor]] = []

    def block(self, n_rows: int) -> BlockFlows:
        """Where the flows of a block are put."""
        return BlockFlows(self.entering, n_rows)

    def add(self, nodes: Int[ndarray, " row"], block: BlockFlows) -> None:
        """Keep the flows of a block, whose rows belong to these nodes."""
        self.found.append((nodes, in_float64(block.values)))

    def passing(self, share: Float[ndarray, " node"]) -> Float[ndarray, "layer pos"]:
        """Sizes of the flows of all rows, each weighted by its node's share."""
        total = np.zeros((len(self.entering), len(self.entering[0])))
        # Where memory has run out on the way, rows have been swept twice.
        times = np.bincount(
            np.concatenate([nodes for nodes, _ in self.found]), minlength=len(share)
        )
        share = share / np.maximum(times, 1)
        for nodes, flows in self.found:
            total += np.einsum("n,nlp->lp", share[nodes], np.abs(flows.numpy()))
        return total

    def through(
        self, n_nodes: int, layer: Int[ndarray, " place"], pos: Int[ndarray, " place"]
    ) -> Float[ndarray, "node place"]:
        """The flows of all nodes at these places, 0 for nodes without a row."""
        table = np.zeros((n_nodes, len(layer)))
        for nodes, flows in self.found:
            table[nodes] = flows.numpy()[:, layer, pos]
        return table
