from __future__ import annotations

from circuits.estimate import estimate
from circuits.expand import Expansion
from circuits.recording import record
from circuits.subject import Subject
from circuits.targets import TargetSettings, read_targets
from tests.tiny import tiny_prompt, toy_dictionary


def prepared(subject: Subject):
    recording = record(subject.frozen, tiny_prompt())
    targets = read_targets(subject.frozen, recording, TargetSettings(), subject.spell)
    features = toy_dictionary().activate(subject.frozen, recording, targets.covectors)
    return recording, features, targets.covectors


def test_more_rows_cost_more(gemma: Subject):
    recording, features, targets = prepared(gemma)
    some = estimate(gemma.frozen, recording, features, Expansion(max_features=5), targets)
    every = estimate(gemma.frozen, recording, features, Expansion(everything=True), targets)
    assert some.rows == 5 + len(targets.pos)
    assert every.rows == len(features) + len(targets.pos)
    assert some.flops < every.flops
    assert some.peak_bytes < every.peak_bytes
