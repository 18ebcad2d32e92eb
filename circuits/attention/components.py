"""Components of a residual that enters an attention: everything that has been added below it.

A number that is linear in that residual is taken apart by one sweep of its covector, which may
live at one position or at many.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attribution.sweep import ForwardPrefix, block_positions, blocks_of, sweep_block
from circuits.interventions.experiment import Experiment
from circuits.machine import each_block, on_device, workers_for
from circuits.model.frozen import Covectors
from graphs.core.nodes import NodeTable


class Components:
    """All that is added to the residual on one prompt, at any position."""

    def __init__(self, experiment: Experiment) -> None:
        self.frozen = experiment.local.frozen
        self.sources, self.attention = experiment.sources, experiment.attention

    def nodes(self, layer: int) -> NodeTable:
        """Those below a layer's attention, in the order of columns."""
        return self.sources.nodes.take(np.arange(self.sources.columns_below(layer)))

    def at(
        self, layer: int, pos: int, covector: Float[Tensor, "row d_model"]
    ) -> Float[Tensor, "row component"]:
        """Products of covectors on the residual entering a layer, at one position."""
        targets = _targets(layer, np.full(len(covector), pos), covector)
        blocks = blocks_of(targets, self.sources, 0, workers_for(covector.device))
        shape = len(covector), self.sources.columns_below(layer)
        found = covector.new_zeros(shape, device=self.frozen.device)

        def work(block: ndarray) -> tuple[ndarray, Tensor]:
            return block, self._sweep(targets.take(block), None)

        for block, part in each_block(work, blocks, covector.device):
            found[on_device(block, found.device)] = part
        return found

    def spread(
        self, layer: int, covector: Float[Tensor, "row pos d_model"]
    ) -> Float[Tensor, "row component"]:
        """Products of covectors on the residual entering a layer, at all positions."""
        n_rows, n_pos, _ = covector.shape
        last = np.full(n_rows, n_pos - 1)
        targets = _targets(layer, last, covector[:, -1])
        step = max(1, block_positions(n_rows * n_pos, workers_for(covector.device)) // n_pos)
        blocks = [np.arange(i, min(i + step, n_rows)) for i in range(0, n_rows, step)]

        def work(block: ndarray) -> Tensor:
            return self._sweep(targets.take(block), covector[block[0] : block[-1] + 1])

        return torch.cat([*each_block(work, blocks, covector.device)])

    def _sweep(self, targets: Covectors, spread: Tensor | None) -> Tensor:
        parts = (self.frozen, self.attention, self.sources, ForwardPrefix())
        return sweep_block(*parts, targets, spread=spread)


def _targets(
    layer: int, pos: Int[ndarray, " row"], covector: Float[Tensor, "row d_model"]
) -> Covectors:
    """Targets that read the residual entering a layer, in front of its attention."""
    return Covectors(
        layer=np.full(len(pos), layer),
        pos=pos,
        covector=covector,
        weight=np.zeros(len(pos)),
        entering=np.ones(len(pos), dtype=bool),
    )
