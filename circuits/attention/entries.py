"""The entries of attention patterns that carry most into a target (`graphs.attention.entries`)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attention.graph_rows import covectors_of
from circuits.attribution.sweep import Crossing, ForwardPrefix, sweep_block
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64, moved
from circuits.recording.attention import head_values
from circuits.recording.record import entering_attention
from graphs.attention.entries import AttentionEntries


def attention_entries(experiment: Experiment, target: int, most: int = 20) -> AttentionEntries:
    """The entries that carry most into a node of the graph, a target or a feature."""
    local = experiment.local
    with exactly():
        covectors, _ = covectors_of(experiment, np.array([target]))
        flows = _Flows(experiment, most)
        parts = experiment.attention, experiment.sources, ForwardPrefix()
        sweep_block(local.frozen, *parts, covectors, flows)
        layer, head, query, key = (column.cpu().numpy() for column in flows.places)
        found = in_float64(flows.flow).numpy()
        patterns = {
            one: in_float64(local.recording.blocks[one].pattern).numpy()
            for one in np.unique(layer).tolist()
        }
    columns = layer.tolist(), head.tolist(), query.tolist(), key.tolist()
    places = list(zip(*columns, strict=True))
    return AttentionEntries(
        target=target,
        layer=layer,
        head=head,
        query=query,
        key=key,
        flow=found,
        attention=np.array([patterns[one][h, q, k] for one, h, q, k in places]),
        passing=np.array([flows.passing.get(one, 0.0) for one in range(local.frozen.n_layers)]),
    )


class _Flows(Crossing):
    """The largest flows into one target, read off its covector above each attention."""

    def __init__(self, experiment: Experiment, most: int) -> None:
        self.local, self.attention, self.most = experiment.local, experiment.attention, most
        self.flow = self.local.recording.tokens.new_zeros(0)
        self.places = torch.zeros(4, 0, dtype=torch.int64, device=self.flow.device)
        self.passing: dict[int, float] = {}

    def above(self, layer: int, covector: Float[Tensor, "1 some_pos d_model"]) -> None:
        """As `Crossing`."""
        frozen, recording = self.local.frozen, self.local.recording
        block, recorded = frozen.blocks[layer], recording.blocks[layer]
        n_pos = covector.shape[1]
        values = head_values(block, recorded, entering_attention(frozen, recording, layer))
        heads = self.attention.above_heads(layer, covector)[:, 0]
        products = torch.einsum("vqgd,vkd->vgqk", heads, values[:, :n_pos])
        mixing = self.attention.mixing_of(layer, n_pos).permute(0, 3, 2, 1)
        flow = (products * mixing).flatten(0, 1)
        self.passing[layer] = float(flow.sum())
        self._keep(layer, flow)

    def _keep(self, layer: int, flow: Float[Tensor, "head query key"]) -> None:
        """Keep the largest of this layer and those before."""
        top = flow.flatten().abs().topk(min(self.most, flow.numel())).indices
        entry, key = top // flow.shape[2], top % flow.shape[2]
        head, query = entry // flow.shape[1], entry % flow.shape[1]
        here = torch.stack([torch.full_like(key, layer), head, query, key])
        home = self.flow.device
        flows = torch.cat([self.flow, moved(flow.flatten()[top], home)])
        places = torch.cat([self.places, moved(here, home)], 1)
        best = flows.abs().topk(min(self.most, len(flows))).indices
        self.flow, self.places = flows[best], places[:, best]
