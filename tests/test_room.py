from __future__ import annotations

import re

import pytest

import circuits.estimate
import circuits.room
from circuits.estimate import Plan, estimate
from circuits.expand import Expansion
from circuits.room import DoesNotFit, require_room, require_room_to_record
from circuits.subject import Subject
from circuits.trace import trace
from tests.test_estimate import prepared, without_blocks
from tests.tiny import tiny_prompt, toy_dictionary


def test_what_does_not_fit_is_refused_with_a_number_that_does(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    recording, features, targets = prepared(gemma)
    few, many = Expansion(max_features=30), Expansion(everything=True)
    without_blocks(monkeypatch)
    there = estimate(gemma.frozen, recording, features, few, targets).peak_bytes + 1
    monkeypatch.setattr(circuits.room, "free_bytes", lambda: there)
    require_room(Plan(gemma.frozen, recording, features, few, targets))
    with pytest.raises(DoesNotFit, match="lower --all to --max-features") as refused:
        require_room(Plan(gemma.frozen, recording, features, many, targets))
    advised = re.search(r"--max-features ([\d,]+)", str(refused.value))
    assert advised is not None
    most = int(advised[1].replace(",", ""))
    assert 20 <= most < len(features)
    require_room(Plan(gemma.frozen, recording, features, Expansion(max_features=most), targets))
    with pytest.raises(DoesNotFit, match=r"lower --max-features 100 to --max-features"):
        require_room(Plan(gemma.frozen, recording, features, Expansion(max_features=100), targets))


def test_sources_that_do_not_fit_are_refused(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.room, "free_bytes", lambda: 1000)
    recording, features, targets = prepared(gemma)
    with pytest.raises(DoesNotFit, match="shorten the prompt or take a dictionary"):
        require_room(Plan(gemma.frozen, recording, features, Expansion(max_features=1), targets))


def test_a_forward_pass_that_does_not_fit_is_refused(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    source = toy_dictionary()
    require_room_to_record(gemma.frozen, source, 6)
    with pytest.raises(DoesNotFit, match=r"A prompt of 1,000,000 tokens needs about .* GiB more"):
        require_room_to_record(gemma.frozen, source, 10**6)
    monkeypatch.setattr(circuits.room, "free_bytes", lambda: 0)
    monkeypatch.setattr(circuits.room, "free_device_bytes", lambda _: 0)
    with pytest.raises(DoesNotFit, match="to be recorded"):
        trace(tiny_prompt(), gemma, source)
    assert len(trace(tiny_prompt(), gemma, source, force=True)) > 0
