"""Attention sinks, against residuals that hooks of their own see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.attribution.local_replacement import LEAST_RATIO
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import AttributionGraph, NodeKind, influence
from tests.conftest import cached_subject
from tests.tiny import tiny_model, tiny_prompt, toy_dictionary

IDS = (1, 5, 9, 5, 14, 8)


def traced(scale: float, n_prefix: int = 1, ids: tuple[int, ...] = IDS):
    """The graph of a model in which token 9 is so many times larger, and its norms by layer."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[9] *= scale
    subject = Subject(
        FrozenModel(model), cached_subject("llama").tokenizer, cached_subject("llama").identity
    )
    settings = TraceSettings(expansion=Expansion(everything=True, kept_share=1.0))
    graph = trace(tiny_prompt(ids, n_prefix), subject, toy_dictionary(), settings)
    norms: list[np.ndarray] = []
    for layer in model.model.layers:
        layer.post_attention_layernorm.register_forward_pre_hook(
            lambda _, given: norms.append(given[0][0].norm(dim=1).numpy())
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]))
    return graph, np.array(norms)


def share_at(graph: AttributionGraph, pos: int) -> float:
    reached, features = influence(graph), graph.nodes.is_kind(NodeKind.FEATURE)
    return float(reached[features & (graph.nodes.pos == pos)].sum() / reached[features].sum())


def test_a_position_far_larger_than_the_others_is_a_sink():
    graph, norms = traced(2000.0)
    (sink,) = graph.provenance.sinks
    ratios = norms[:, 2] / np.sort(norms, axis=1)[:, 2]  # the lower of the middle two of six
    assert ratios.max() > LEAST_RATIO
    assert (sink.pos, sink.layer) == (2, int(ratios.argmax()))
    assert sink.ratio == pytest.approx(ratios.max(), rel=1e-6)
    assert sink.influence == pytest.approx(share_at(graph, 2), rel=1e-9)
    assert 0 < sink.influence < 1


def test_others_and_context_only_positions_are_none():
    for scale, n_prefix in ((1.0, 1), (2000.0, 3)):
        graph, norms = traced(scale, n_prefix)
        assert graph.provenance.sinks == ()
    assert norms[:, 2].max() > LEAST_RATIO * np.median(norms)


def test_of_two_tokens_one_can_be_a_sink():
    graph, _ = traced(2000.0, 0, (9, 5))
    assert [sink.pos for sink in graph.provenance.sinks] == [0]
