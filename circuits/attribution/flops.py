"""FLOPs that rows need, and where on a prompt targets and sources had best meet.

Counted is what is needed, not what blocks waste.  With n swept positions up to its own, a target
crosses every attention from its layer down to the block where it stops, the first at its own
position alone:

    2 · (1 + (crossed - 1) · n) · d_model · heads · d_head     through W_O
    2 · crossed · n · d_model · kv heads · d_head              through W_V
    crossed · n · (n + 1) · heads · d_head                     through the causal pattern
    2 · d_model · (vectors of sources that it sees)            read off
    2 · (layers below, down to that block) · n · d_model²      through affine skips, if any

A source that writes to several layers is read off at each.  Sources below `floor` cross the
attentions and skips up to it, at all n positions from their own on, and are read off at each of
them (`circuits.attribution.forward_prefix`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.features.active import ActiveFeatures
from circuits.model.frozen import FrozenModel
from circuits.recording.record import Recording

MOST_PUSHED = 2**26  # numbers in sources pushed forward: 256 MB in float32


class Costs:
    """FLOPs on one prompt, from how many sources and targets there are by layer and position."""

    def __init__(self, frozen: FrozenModel, recording: Recording, features: ActiveFeatures) -> None:
        self.parallel, self.n_inputs = frozen.parallel, len(recording.inputs)
        self.context = recording.prompt.context_only
        self.n_layers, self.d_model = frozen.n_layers, frozen.d_model
        self.heads, self.kv_heads = frozen.blocks[0].output.shape[1], len(frozen.blocks[0].value)
        self.n_pos = max(1, len(recording.prompt) - self.context)
        self.features = self.table(features.layer, features.pos)  # (layer, swept pos)
        self.sources = self.features + 1  # every layer and position also has an error
        self.sources[-1] = 0
        self.vectors = self._vectors(features)
        skips = [features.rows.linear(layer) for layer in range(self.n_layers)]
        self.skips = sum(map(len, skips)) / self.n_layers  # of a layer, on average
        self.crossing = any(set(paths) - {layer} for layer, paths in enumerate(skips))

    def table(
        self, layer: Int[Tensor, " row"], pos: Int[Tensor, " row"]
    ) -> Float[Tensor, "layer pos"]:
        """How many rows there are by layer, the final residual's last, and swept position."""
        place = layer.cpu() * self.n_pos + (pos.cpu() - self.context).clamp(min=0)
        size = (self.n_layers + 1) * self.n_pos
        return torch.bincount(place, minlength=size).double().view(-1, self.n_pos)

    def of_rows(self, rows: Float[Tensor, "layer pos"], floor: int = 0) -> float:
        """FLOPs of rows for as many targets, those from `floor` on being cut there."""
        layer, n = torch.arange(self.n_layers + 1)[:, None], torch.arange(1, self.n_pos + 1)
        bottom = floor * (layer >= floor)
        crossed = (layer + (not self.parallel)).clamp(max=self.n_layers) - bottom
        through_output = (crossed.clamp(max=1) + (crossed - 1).clamp(min=0) * n) * self.heads
        through_weights = 2 * self.d_model * (through_output + crossed * n * self.kv_heads)
        through_skip = 2 * self.skips * (layer - bottom) * n * self.d_model**2
        through_pattern = crossed * n * (n + 1) * self.heads
        below, vectors = self._below(self.sources), self._below(self.vectors)
        seen = (vectors - vectors[bottom[:, 0]]).cumsum(1)
        met = torch.where(bottom > 0, (below[floor] + self.n_inputs).cumsum(0).cumsum(0), 0)
        read = 2 * self.d_model * (seen + met + torch.where(bottom > 0, 0, n * self.n_inputs))
        return float((rows * (through_weights + through_skip + through_pattern + read)).sum())

    def of_pushing(self, floor: int) -> float:
        """FLOPs of pushing all lower sources up to `floor`."""
        n = torch.arange(self.n_pos, 0, -1)
        to_cross = torch.arange(floor - 1, -1, -1).double()
        crossings = to_cross @ self.sources[:floor] + floor * self.n_inputs
        weights = 2 * n * self.d_model * (self.heads + self.kv_heads + self.skips * self.d_model)
        return float((crossings * (weights + n * (n + 1) * self.heads)).sum())

    def best_floor(self, rows: Float[Tensor, "layer pos"]) -> int:
        """Where to cut, for so many rows by layer and position; 0 for not at all.

        Skips to higher layers would cross the cut beside the residual stream.
        """
        if self.crossing:
            return 0
        costs = [
            self.of_rows(rows, floor) + self.of_pushing(floor)
            for floor in range(self.n_layers + 1)
            if self.pushed(floor) * self.d_model <= MOST_PUSHED
        ]
        return costs.index(min(costs))

    def pushed(self, floor: int) -> float:
        """Vectors that pushing all lower sources up to `floor` leaves."""
        return float(self.sources[:floor].sum(0) @ torch.arange(self.n_pos, 0, -1).double())

    def visible(self, rows: Float[Tensor, "layer pos"]) -> float:
        """Sources in lower layers and at no later position, summed over these rows."""
        inputs = torch.arange(1, self.n_pos + 1) * self.n_inputs
        return float((rows * (self._below(self.sources).cumsum(1) + inputs)).sum())

    def positions(self, rows: Float[Tensor, "layer pos"]) -> float:
        """Positions up to each row's own, summed over rows."""
        return float((rows * torch.arange(1, self.n_pos + 1)).sum())

    def _vectors(self, features: ActiveFeatures) -> Float[Tensor, "layer pos"]:
        """What is written by layer and position, errors included."""
        changes = self.features - self.table(features.last_written + 1, features.pos)
        written = changes.cumsum(0) + 1
        written[-1] = 0
        return written

    def _below(self, table: Float[Tensor, "layer pos"]) -> Float[Tensor, "layer pos"]:
        """Sums over all lower layers, by position."""
        return torch.cat([torch.zeros(1, self.n_pos).double(), table.cumsum(0)[:-1]])
