"""The strongest paths of heads of one edge (`graphs.attention.head_paths`).

What a source is behind some heads is a component of the residual, which goes on as any source does.
The sum of all paths that begin with these heads is known before they are split, since the
covector above an attention has everything behind it in it.  With G that on the values of head h,

    sum of all paths over … and head h = Σ_k G[k] · (value of the component)[k]

So the largest sum is split first: into what crosses no further attention, and what crosses
each later head next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from circuits.attention.graph_rows import covectors_of
from circuits.attention.stationary import Slots, Stage, onward, reads_before, stages, values_of
from circuits.attribution.sweep import Crossing, ForwardPrefix, sweep_block
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64, moved
from circuits.model.frozen import Covectors
from graphs.attention.head_paths import HeadPath, HeadPaths

MOST_SPLIT = 4  # sums per path that is listed
Heads = tuple[tuple[int, int], ...]  # (layer, head) from the source on


class _Component(NamedTuple):
    """What a source is behind some heads."""

    heads: Heads
    values: Float[Tensor, "key d_head"]  # of the last of them


def head_paths(experiment: Experiment, source: int, target: int, most: int = 10) -> HeadPaths:
    """The strongest paths of the edge between two nodes, rows of the graph."""
    local, sources = experiment.local, experiment.sources
    with exactly():
        column = sources.columns(experiment.graph.nodes.take(np.array([source])))
        covectors, constant = covectors_of(experiment, np.array([target]))
        slots = Slots.of(sources, column)
        paths = _Paths(experiment, covectors)
        through = np.zeros(paths.shape)
        for layer, stage in enumerate(stages(local, sources, slots, experiment.attention)):
            if layer < len(through):
                values = values_of(local, sources, slots, layer, stage.before)
                through[layer] = paths.parts(layer, values[..., 0])
        at_bias = column[0] == sources.bias_column + covectors.layer[0]
        found = paths.strongest(slots, most, float(constant) if at_bias else 0.0)
    weight = float(experiment.graph.weights[target, source])
    rest = weight - sum(path.weight for path in found)
    return HeadPaths(weight=weight, paths=tuple(found), rest=rest, through=through)


class _Paths(Crossing):
    """The paths into one target."""

    def __init__(self, experiment: Experiment, target: Covectors) -> None:
        self.local, self.sources = experiment.local, experiment.sources
        self.target, self.attention = target, experiment.attention
        frozen = self.local.frozen
        self.shape = frozen.n_layers, max(block.n_heads for block in frozen.blocks)
        self.reads_before = bool(reads_before(frozen, target)[0])
        # Per layer covectors on the values of its heads; none above what the target reads.
        self.at_values: dict[int, Float[Tensor, "head key d_head"]] = {}
        sweep_block(frozen, self.attention, self.sources, ForwardPrefix(), target, self)

    def above(self, layer: int, covector: Float[Tensor, "1 some_pos d_model"]) -> None:
        """As `Crossing`."""
        mixing = self.attention.mixing_of(layer, covector.shape[1])
        heads = self.attention.above_heads(layer, covector)[:, 0]
        self.at_values[layer] = torch.einsum("vkqg,vqgd->vgkd", mixing, heads).flatten(0, 1)

    def parts(
        self, layer: int, values: Float[Tensor, "kv_head pos d_head"]
    ) -> Float[ndarray, " head"]:
        """What goes through each head of a layer, given the values at its keys."""
        if layer not in self.at_values:
            return np.zeros(self.shape[1])
        at_values = self.at_values[layer]
        group = len(at_values) // len(values)
        values = values[:, : at_values.shape[1]].repeat_interleave(group, 0)
        return in_float64((at_values * values).sum((1, 2))).numpy()

    def strongest(self, slots: Slots, most: int, constant: float) -> list[HeadPath]:
        """The strongest paths of one source; `constant` is a part that crosses no head."""
        local, sources, number = self.local, self.sources, count()
        ended: list[HeadPath] = []
        pending: list[tuple[float, int, _Component]] = []  # smallest, so largest sum, first

        def split(heads: Heads, first: int, found: Iterable[Stage], of: Slots | None) -> None:
            end = 0.0 if heads else constant
            for layer, stage in enumerate(found, first):
                end += self._read(layer, stage)
                if layer == len(sources.layers) or (heads and layer == first):
                    continue
                values = values_of(local, sources, of, layer, stage.before)[..., 0]
                parts = self.parts(layer, values).tolist()
                for head, part in enumerate(parts):
                    own = values[head * len(values) // len(parts)]
                    component = _Component((*heads, (layer, head)), own)
                    heapq.heappush(pending, (-abs(part), next(number), component))
            ended.append(HeadPath(heads, end))

        split((), 0, stages(local, sources, slots), slots)
        while pending and len(ended) < most * MOST_SPLIT:
            largest = heapq.nlargest(most, (abs(path.weight) for path in ended))
            if len(largest) == most and largest[-1] >= -pending[0][0]:
                break
            heads, values = heapq.heappop(pending)[2]
            layer = heads[-1][0]
            split(heads, layer, onward(local, sources, layer, self._added(heads[-1], values)), None)
        return sorted(ended, key=lambda path: -abs(path.weight))[:most]

    def _read(self, layer: int, stage: Stage) -> float:
        """What the target reads of a component there."""
        if layer != self.target.layer[0]:
            return 0.0
        residual = stage.before if self.reads_before else stage.behind
        read = moved(residual[0, int(self.target.pos[0])], self.target.covector.device)
        return float(read @ self.target.covector[0])

    def _added(
        self, head: tuple[int, int], values: Float[Tensor, "key d_head"]
    ) -> Float[Tensor, "1 pos d_model"]:
        """What a head adds, given the values at its keys."""
        layer, number = head
        block = self.local.frozen.blocks[layer]
        kv_head, member = divmod(number, block.n_heads // block.n_kv_heads)
        mixing = self.attention.mixing_of(layer, len(values))[kv_head, :, :, member]
        own = block.output[:, number * block.d_head : (number + 1) * block.d_head]
        return (mixing.T @ values @ own.T)[None]
