"""Influence guessed from norms, beside what it stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import circuits.attribution.likely
from circuits.atlas.shipped import atlas_transcoders
from circuits.attribution.likely import likely_influence
from circuits.attribution.local_replacement import LocalReplacement, local_replacement
from circuits.attribution.rows import Expansion
from circuits.attribution.targets import TargetSettings, read_targets
from circuits.features.files.reading import read_transcoders
from circuits.model.frozen import Covectors
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import TraceSettings, trace
from circuits.recording.record import record
from graphs import NodeKind, influence
from tests.tiny import tiny_prompt, toy_dictionary

SHOWN = "The capital of the state containing Dallas is"


def test_it_ranks_features_as_their_influence_does():
    subject = read_subject("atlas-small")
    source = read_transcoders(str(atlas_transcoders("atlas-small")))
    prompt = read_prompt(SHOWN, subject.tokenizer)
    with torch.inference_mode():
        local = local_replacement(prompt, subject, source, TargetSettings())
        guessed = likely_influence(local).numpy()
    graph = trace(prompt, subject, source, TraceSettings(expansion=Expansion(everything=True)))
    true = influence(graph)[graph.nodes.is_kind(NodeKind.FEATURE)]
    assert spearmanr(guessed, true).statistic > 0.8


def guess(subject: Subject, where: tuple[int, int], *, skip: bool = False) -> torch.Tensor:
    """Summed by (layer, pos), for a target at a layer and position."""
    recording = record(subject.frozen, tiny_prompt())
    covector = torch.ones(1, 16).double()
    covectors = Covectors(*(np.array([at]) for at in where), covector, np.ones(1))
    features = toy_dictionary(skip=skip).activate(subject.frozen, recording, covectors)
    read = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
    targets = replace(read, covectors=covectors)
    guessed = likely_influence(LocalReplacement(subject.frozen, recording, features, targets))
    table = torch.zeros(3, len(tiny_prompt()))
    return table.index_put((features.layer, features.pos), guessed, accumulate=True)


@pytest.mark.parametrize("skip", [False, True])
def test_only_what_comes_before_a_target_has_influence(dense_subject: Subject, skip: bool):
    found = guess(dense_subject, (2, 3), skip=skip)
    assert (found[0, 1:4] > 0).all()
    assert found[1, 3] > 0
    # In parallel blocks the MLP of layer 2 does not hear the attention of layer 2.
    assert bool((found[1, 1:3] > 0).all()) is not dense_subject.frozen.parallel
    assert not found[2].any()
    assert not found[:, 4:].any()


def test_influence_goes_with_activation(gemma: Subject):
    local = local_replacement(tiny_prompt(), gemma, toy_dictionary(), TargetSettings())
    guessed, features = likely_influence(local), local.features
    cell = (features.layer == 1) & (features.pos == 3)
    per_size = guessed[cell] / features.activation[cell]
    torch.testing.assert_close(per_size, per_size[:1].expand_as(per_size), rtol=1e-4, atol=0.0)


def test_positions_may_be_sampled(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    """Influence is moved, none is lost."""
    every = guess(gemma, (3, 5))
    monkeypatch.setattr(circuits.attribution.likely, "SAMPLED_POSITIONS", 2)
    some = guess(gemma, (3, 5))
    assert not torch.equal(some, every)
    assert float(some[2].sum()) == pytest.approx(float(every[2].sum()))
    assert 0.5 < float(some.sum() / every.sum()) < 2.0


def test_one_attention_by_hand(gemma: Subject):
    """The square of a covector at a query, spread over keys, against pulling it through heads."""
    recording = record(gemma.frozen, tiny_prompt())
    block, seen, pos = gemma.frozen.blocks[1], recording.blocks[1], 2
    unit = torch.ones(16).double() / 4
    mixed = circuits.attribution.likely._mixed(block, seen, unit[None].float())
    for key in range(pos + 1):
        expected = 0.0
        for head in range(len(seen.pattern)):
            rows = slice(head * block.d_head, (head + 1) * block.d_head)
            group = head * len(block.value) // block.output.shape[1]
            values = slice(group * block.d_head, (group + 1) * block.d_head)
            pulled = unit @ block.output[:, rows] @ block.value[values]
            scale = seen.pattern[head, pos, key]
            scale = scale / seen.post_attention_denominator[pos] / seen.attention_denominator[key]
            expected += float((pulled * scale).square().sum())
        assert float(mixed[pos, key]) == pytest.approx(expected, rel=1e-4)
    assert not mixed[pos, pos + 1 :].any()
