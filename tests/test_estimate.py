from __future__ import annotations

import pytest
import torch

from circuits.estimate import estimate, sweep_flops
from circuits.expand import Expansion
from circuits.recording import record
from circuits.subject import Subject
from circuits.targets import TargetSettings, read_targets
from tests.conftest import cached_subject
from tests.tiny import tiny_prompt, toy_dictionary


def prepared(subject: Subject):
    recording = record(subject.frozen, tiny_prompt())
    targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
    return recording, toy_dictionary().activate(subject.frozen, recording, targets.covectors)


@pytest.mark.parametrize(("name", "crossed"), [("gemma-3", 2), ("gpt-neox", 1)])
def test_flops_of_one_row_are_those_counted_by_hand(name: str, crossed: int):
    """A feature of layer 1 at position 4; position 0 is context only, so 4 positions are swept."""
    subject = cached_subject(name)
    recording, features = prepared(subject)
    heads, kv_heads = (24, 12) if name == "gemma-3" else (16, 16)
    through_output = 2 * (1 + (crossed - 1) * 4) * 16 * heads
    through_value = 2 * crossed * 4 * 16 * kv_heads
    through_pattern = crossed * 4 * 5 * heads
    below = (features.layer == 0) & (features.pos <= 4)
    read_off = 2 * 16 * (int(below.sum()) + 5)  # and one error per position
    flops = sweep_flops(subject.frozen, recording, features, torch.tensor([1]), torch.tensor([4]))
    assert flops == through_output + through_value + through_pattern + read_off


def test_more_rows_cost_more(gemma: Subject):
    recording, features = prepared(gemma)
    some = estimate(gemma.frozen, recording, features, Expansion(max_features=5), 3)
    every = estimate(gemma.frozen, recording, features, Expansion(everything=True), 3)
    assert some.rows == 8
    assert every.rows == len(features) + 3
    assert some.flops < every.flops
    assert some.peak_bytes < every.peak_bytes
