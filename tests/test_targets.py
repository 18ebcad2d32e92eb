from __future__ import annotations

import numpy as np
import pytest
import torch

from circuits.attribution.targets import read_targets
from circuits.attribution.trace_settings import Direction, TargetSettings
from circuits.model.subject import Subject
from circuits.recording.record import record
from graphs import NodeKind
from tests.tiny import tiny_prompt
from tests.tolerances import EXACT


def uncapped(subject: Subject, position: int) -> torch.Tensor:
    """Logits before any cap, computed from the final residual."""
    recording = record(subject.frozen, tiny_prompt(), position)
    logits, cap = recording.logits, subject.frozen.softcap
    return logits if cap is None else torch.atanh(logits / cap) * cap


def read(subject: Subject, settings: TargetSettings):
    recording = record(subject.frozen, tiny_prompt(), settings.position)
    return read_targets(subject.frozen, recording, settings, subject.spell)


def test_a_logits_value_is_the_uncapped_logit_less_the_mean(subject: Subject):
    targets = read(subject, TargetSettings(max_logits=4))
    logits = uncapped(subject, -1)
    expected = (logits - logits.mean())[targets.index]
    torch.testing.assert_close(targets.value, expected, **EXACT)


def test_probabilities_are_the_models_own_after_the_cap(subject: Subject):
    targets = read(subject, TargetSettings(max_logits=4))
    probabilities = record(subject.frozen, tiny_prompt()).logits.softmax(-1)
    expected = probabilities.sort(descending=True).values[: len(targets.described)]
    np.testing.assert_allclose(targets.covectors.weight, expected, **EXACT)


def test_top_logits_stop_at_the_probability_mass(gemma: Subject):
    probabilities = record(gemma.frozen, tiny_prompt()).logits.softmax(-1)
    rising = probabilities.sort(descending=True).values.cumsum(0)
    for mass in (0.0, 0.3, 0.6):
        targets = read(gemma, TargetSettings(probability_mass=mass, max_logits=23))
        count = len(targets.described)
        assert float(rising[count - 1]) >= mass
        assert count == 1 or float(rising[count - 2]) < mass


def test_there_are_at_most_max_logits(gemma: Subject):
    assert len(read(gemma, TargetSettings(probability_mass=1.0, max_logits=3)).described) == 3


def test_named_tokens_weigh_one_each(gemma: Subject):
    targets = read(gemma, TargetSettings(tokens=(4, 7)))
    assert targets.index.tolist() == [4, 7]
    assert targets.covectors.weight.tolist() == [1.0, 1.0]
    assert [target.text for target in targets.described] == ["e", "h"]


def test_a_contrast_is_a_difference_of_logits(subject: Subject):
    targets = read(subject, TargetSettings(tokens=(4,), against=7))
    logits = uncapped(subject, -1)
    torch.testing.assert_close(targets.value[0], logits[4] - logits[7], **EXACT)
    assert targets.kind == NodeKind.TARGET
    assert targets.described[0].text == "e − h"


def test_any_position_can_be_explained(subject: Subject):
    targets = read(subject, TargetSettings(tokens=(4,), position=2))
    logits = uncapped(subject, 2)
    torch.testing.assert_close(targets.value[0], logits[4] - logits.mean(), **EXACT)
    assert targets.covectors.pos.tolist() == [2]


@pytest.mark.parametrize("layer", [None, 1])
def test_any_vector_can_be_explained(gemma: Subject, layer: int | None):
    vector = torch.linspace(-1, 1, 16).double()
    direction = Direction("ramp", vector, layer)
    targets = read(gemma, TargetSettings(directions=(direction, Direction("other", vector * 2))))
    recording = record(gemma.frozen, tiny_prompt())
    norm = gemma.frozen.final_norm
    final = norm.linear(recording.final_residual, recording.final_denominator)[-1]
    read_there = final if layer is None else recording.blocks[layer].mlp_residual[-1]
    torch.testing.assert_close(targets.value[0], read_there @ vector, **EXACT)
    assert [target.text for target in targets.described] == ["ramp", "other"]


def test_the_unembedding_is_not_changed(gemma: Subject):
    before = gemma.frozen.unembedding.clone()
    read(gemma, TargetSettings())
    torch.testing.assert_close(gemma.frozen.unembedding, before, rtol=0, atol=0)
