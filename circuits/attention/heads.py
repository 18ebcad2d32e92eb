"""The heads that carry each edge of a graph (`graphs.attention.edge_heads`).

With C[l, t] the covector of target t above attention l, and U[l, c] what source c is at its
position p(c) in front of it, while it has crossed none (`circuits.attention.stationary`),

    part[t, c, l, h] = Σ_q mixing[l, h, q, p(c)] · (C[l, t, q] · W_O[h]) · (W_V[h] · U[l, c])
    bypass[t, c]     = (t's covector) · U[layer of t, c]             if t is at p(c), else 0

The covectors are those of the sweep, which shows them on their way down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from circuits.attention.graph_rows import covectors_of
from circuits.attention.stationary import Slots, reads_before, stages, values_of
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sources import Sources
from circuits.attribution.sweep import Crossing, ForwardPrefix, blocks_of, sweep_block
from circuits.interventions.experiment import Experiment
from circuits.machine import (
    each_block,
    exact,
    exactly,
    in_float64,
    moved,
    on_device,
    workers_for,
)
from circuits.model.frozen import Covectors
from circuits.recording.attention import Attention
from graphs.attention.edge_heads import EdgeHeads
from graphs.core.graph import edge_targets


class _Carried(NamedTuple):
    """Sources that have crossed no attention: what attention and targets take of them."""

    slots: Slots
    values: list[Float[Tensor, "kv_head pos d_head slot"]]  # of every layer's attention
    bypass: Float[Tensor, "row slot"]  # by each target, at its position


def heads(experiment: Experiment, edges: Int[ndarray, " edge"] | None = None) -> EdgeHeads:
    """The heads of all edges of a graph, or of some, given as places among its stored weights."""
    graph, local = experiment.graph, experiment.local
    with exactly():
        sources, attention = experiment.sources, experiment.attention
        asked = np.arange(graph.weights.nnz) if edges is None else edges
        target = edge_targets(graph.weights)[asked]
        source = graph.weights.indices[asked].astype(np.int64)
        nodes, row = np.unique(target, return_inverse=True)
        column = sources.columns(graph.nodes)
        chosen, place = np.unique(column[source], return_inverse=True)
        covectors, constant = covectors_of(experiment, nodes)
        carried = _carried(local, sources, Slots.of(sources, chosen), covectors)
        crossing = _Edges(row, carried.slots.slot[place], carried.slots.pos[place])
        own = (crossing.pos < 0) | (crossing.pos == covectors.pos[row])
        bypass = in_float64(carried.bypass).numpy()[row, crossing.slot] * own
        read = chosen[place] == sources.bias_column + covectors.layer[row]
        bypass += in_float64(constant).numpy()[row] * read
        parts = _parts(local, sources, attention, covectors, carried, crossing)
    return EdgeHeads(target, source, graph.weights.data[asked], bypass, parts)


class _Edges(NamedTuple):
    """Edges between rows and slots."""

    row: Int[ndarray, " edge"]
    slot: Int[ndarray, " edge"]
    pos: Int[ndarray, " edge"]  # of the source; -1: every position

    def into(self, rows: Int[ndarray, " some"], n_rows: int) -> tuple[ndarray, _Edges]:
        """Which edges are those of some rows, and these edges with rows as they are there."""
        there = np.full(n_rows, -1)
        there[rows] = np.arange(len(rows))
        place = np.flatnonzero(there[self.row] >= 0)
        return place, _Edges(there[self.row[place]], self.slot[place], self.pos[place])


def _carried(
    local: LocalReplacement, sources: Sources, slots: Slots, covectors: Covectors
) -> _Carried:
    frozen, values = local.frozen, list[Tensor]()
    bypass = covectors.covector.new_zeros(len(covectors.pos), slots.n_slots)
    entering = reads_before(frozen, covectors)
    for layer, stage in enumerate(stages(local, sources, slots)):
        for residual, before in ((stage.before, True), (stage.behind, False)):
            here = np.flatnonzero((covectors.layer == layer) & (entering == before))
            own = moved(covectors.take(here).covector, residual.device)
            at = residual[:, on_device(covectors.pos[here], residual.device)]
            rows = on_device(here, bypass.device)
            bypass[rows] = moved(torch.einsum("rd,srd->rs", own, at), bypass.device)
        if layer < frozen.n_layers:
            values.append(values_of(local, sources, slots, layer, stage.before))
    return _Carried(slots, values, bypass)


def _parts(
    local: LocalReplacement,
    sources: Sources,
    attention: Attention,
    covectors: Covectors,
    carried: _Carried,
    edges: _Edges,
) -> Float[ndarray, "edge layer head"]:
    """The parts of all edges."""
    frozen = local.frozen
    n_heads = max(block.n_heads for block in frozen.blocks)
    number = np.float64 if frozen.dtype == torch.float64 else np.float32
    parts = np.zeros((len(edges.row), frozen.n_layers, n_heads), dtype=number)

    def work(block: ndarray) -> tuple[ndarray, Tensor]:
        place, own = edges.into(block, len(covectors.pos))
        crossing = _HeadParts(attention, carried.values, own, parts.shape[1:])
        nothing = ForwardPrefix()
        sweep_block(frozen, attention, sources, nothing, covectors.take(block), crossing)
        return place, crossing.parts

    blocks = blocks_of(covectors, sources, 0, workers_for(frozen.device))
    for place, found in each_block(work, blocks, frozen.device):
        parts[place] = exact(found).cpu().numpy()
    return parts


class _HeadParts(Crossing):
    """The parts of a block's edges, read off the covectors above each attention."""

    def __init__(
        self,
        attention: Attention,
        values: list[Float[Tensor, "kv_head pos d_head slot"]],
        edges: _Edges,
        shape: tuple[int, ...],
    ) -> None:
        self.attention, self.values = attention, values
        self.order = np.argsort(edges.row, kind="stable")
        self.rows = edges.row[self.order]
        device = values[0].device
        self.columns = [on_device(column[self.order], device) for column in edges]
        self.place = on_device(self.order, device)
        self.parts = values[0].new_zeros(len(edges.row), *shape)

    def above(self, layer: int, covector: Float[Tensor, "active some_pos d_model"]) -> None:
        """As `Crossing`."""
        n_active, n_pos, _ = covector.shape
        end = int(np.searchsorted(self.rows, n_active))
        row, slot, pos = (moved(column[:end], covector.device) for column in self.columns)
        found: list[Tensor] = []  # by head
        mixing = self.attention.mixing_of(layer, n_pos)
        above = self.attention.above_heads(layer, covector)
        group = mixing.shape[3]
        for kv_head, values in enumerate(self.values[layer]):
            for member in range(group):
                # (row, key, d_head), then (key, row, slot)
                at_keys = mixing[kv_head, :, :, member] @ above[kv_head, :, :, member]
                read = torch.bmm(at_keys.transpose(0, 1), values[:n_pos])
                part = read[pos.clamp(0, n_pos - 1), row, slot]
                part = torch.where(pos < 0, read.sum(0)[row, slot], part)
                found.append(torch.where(pos < n_pos, part, 0))
        part = moved(torch.stack(found, 1), self.parts.device)
        self.parts[self.place[:end], layer, : len(found)] = part
