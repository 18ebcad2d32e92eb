"""The entries of attention patterns that carry most into a target (`graphs.attention.entries`)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attention.graph_rows import covectors_of
from circuits.attribution.local_replacement import LocalReplacement
from circuits.attribution.sources import build_sources
from circuits.attribution.sweep import ForwardPrefix, sweep_block
from circuits.interventions.experiment import Experiment
from circuits.machine import exactly, in_float64
from circuits.recording.attention import Attention
from circuits.recording.record import entering_attention
from graphs.attention.entries import AttentionEntries


def attention_entries(experiment: Experiment, target: int, most: int = 20) -> AttentionEntries:
    """The entries that carry most into a node of the graph, a target or a feature."""
    local = experiment.local
    with exactly():
        sources = build_sources(local, 0)
        covectors, _ = covectors_of(experiment, np.array([target]))
        attention = Attention(local.frozen, local.recording, 0)
        flows = _Flows(local, attention, most)
        sweep_block(local.frozen, attention, sources, ForwardPrefix(), covectors, flows)
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


class _Flows:
    """The largest flows into one target, read off its covector above each attention."""

    def __init__(self, local: LocalReplacement, attention: Attention, most: int) -> None:
        self.local, self.attention, self.most = local, attention, most
        self.flow = local.recording.tokens.new_zeros(0)
        self.places = torch.zeros(4, 0, dtype=torch.int64, device=self.flow.device)
        self.passing: dict[int, float] = {}

    def above(self, layer: int, covector: Float[Tensor, "1 some_pos d_model"]) -> None:
        """As `circuits.attribution.sweep.Crossing`."""
        block, recorded = self.local.frozen.blocks[layer], self.local.recording.blocks[layer]
        entering = entering_attention(self.local.frozen, self.local.recording, layer)
        values = entering @ block.value.T
        values = values + block.value_constant * recorded.attention_denominator[:, None]
        values = values.unflatten(1, (block.n_kv_heads, -1))
        n_pos, heads, self.passing[layer] = covector.shape[1], 0, 0.0
        for kv_head, mixing in enumerate(self.attention.mixing[layer]):
            at_queries = self.attention.output[layer][kv_head].product(covector[0])
            at_queries = at_queries.view(n_pos, -1, self.attention.d_head)
            products = torch.einsum("qgd,kd->kqg", at_queries, values[:n_pos, kv_head])
            flow = products * mixing.view(len(mixing), len(mixing), -1)[:n_pos, :n_pos]
            self.passing[layer] += float(flow.sum())
            self._keep(layer, heads, flow)
            heads += flow.shape[2]

    def below(self, layer: int, covector: Float[Tensor, "1 some_pos d_model"]) -> None:
        """As `circuits.attribution.sweep.Crossing`."""

    def _keep(self, layer: int, first: int, flow: Float[Tensor, "key query head"]) -> None:
        """Keep the largest so far, and those of some heads of a layer."""
        top = flow.flatten().abs().topk(min(self.most, flow.numel())).indices
        key, query, head = torch.unravel_index(top, flow.shape)
        places = torch.stack([torch.full_like(key, layer), head + first, query, key])
        flows, places = (
            torch.cat([self.flow, flow.flatten()[top]]),
            torch.cat([self.places, places], 1),
        )
        best = flows.abs().topk(min(self.most, len(flows))).indices
        self.flow, self.places = flows[best], places[:, best]
