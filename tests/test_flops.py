"""FLOPs of a few rows, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import circuits.attribution.cost
from circuits.attribution.cost import Costs
from circuits.attribution.local_replacement import local_replacement
from circuits.attribution.trace_settings import TargetSettings
from circuits.features.active import ActiveFeatures
from circuits.model.subject import Subject
from tests.conftest import cached_subject
from tests.tiny import tiny_prompt, toy_dictionary

D_MODEL = 16


def prepared(name: str, *, skip: bool = False) -> tuple[Costs, ActiveFeatures]:
    """Position 0 of six is context only, so five are swept."""
    subject: Subject = cached_subject(name)
    source = toy_dictionary(skip=skip)
    local = local_replacement(tiny_prompt(), subject, source, TargetSettings())
    return Costs(local), local.features


def one_row(costs: Costs, layer: int, pos: int) -> torch.Tensor:
    return costs.table(np.array([layer]), np.array([pos]))


@pytest.mark.parametrize(
    ("name", "crossed", "heads", "kv_heads"), [("gemma-3", 2, 24, 12), ("gpt-neox", 1, 16, 16)]
)
def test_a_row_pulled_down_to_the_tokens(name: str, crossed: int, heads: int, kv_heads: int):
    costs, features = prepared(name)
    through_output = 2 * (1 + (crossed - 1) * 4) * D_MODEL * heads
    through_value = 2 * crossed * 4 * D_MODEL * kv_heads
    through_pattern = crossed * 4 * 5 * heads
    below = (features.layer == 0) & (features.pos <= 4)
    read_off = 2 * D_MODEL * (int(below.sum()) + 4 + 4)  # errors and tokens of four positions
    expected = through_output + through_value + through_pattern + read_off
    assert costs.of_rows(one_row(costs, 1, 4)) == expected


def test_a_row_that_meets_its_sources_halfway():
    """A feature of layer 2 at position 4 crosses layers 2 and 1 and stops on top of layer 0."""
    costs, features = prepared("gemma-3")
    uncut = costs.of_rows(one_row(costs, 2, 4))
    third_crossing = 2 * 4 * D_MODEL * (24 + 12) + 4 * 5 * 24
    lowest = [int(((features.layer == 0) & (features.pos == pos)).sum()) for pos in (1, 2, 3, 4)]
    read_below = 2 * D_MODEL * sum(count + 2 for count in lowest)
    met = 2 * D_MODEL * sum((count + 2) * n for count, n in zip(lowest, (4, 3, 2, 1), strict=True))
    assert costs.of_rows(one_row(costs, 2, 4), split=1) == uncut - third_crossing - read_below + met
    one_crossing = 2 * D_MODEL * (24 + 4 * 12) + 4 * 5 * 24
    assert costs.of_rows(one_row(costs, 1, 4), split=1) == one_crossing + met
    assert costs.of_rows(one_row(costs, 0, 4), split=1) == costs.of_rows(one_row(costs, 0, 4))


def test_sources_pushed_to_the_second_layer():
    """All that enters at layer 0 crosses layer 1, tokens cross both."""
    costs, features = prepared("gemma-3")
    expected = 0
    for pos, n in zip(range(1, 6), (5, 4, 3, 2, 1), strict=True):
        crossings = int(((features.layer == 0) & (features.pos == pos)).sum()) + 1 + 2
        expected += crossings * (2 * n * D_MODEL * (24 + 12) + n * (n + 1) * 24)
    assert costs.of_forward_prefix(2) == expected
    assert costs.of_forward_prefix(0) == 0


@pytest.mark.parametrize("name", ["gemma-3", "gpt-neox"])
def test_a_skip_is_crossed_in_every_layer_below(name: str):
    plain, _ = prepared(name, skip=True)
    plain.skips = 0.0
    skipped, features = prepared(name, skip=True)
    row = one_row(plain, 2, 4)
    product = 2 * D_MODEL**2
    assert skipped.of_rows(row) - plain.of_rows(row) == 2 * 4 * product
    assert skipped.of_rows(row, split=1) - plain.of_rows(row, split=1) == 4 * product
    pushed = 0
    for pos, n in zip(range(1, 6), (5, 4, 3, 2, 1), strict=True):
        entering = int(((features.layer == 0) & (features.pos == pos)).sum()) + 1
        pushed += n * (entering + 2 * plain.n_inputs)  # tokens cross both layers
    assert skipped.of_forward_prefix(2) - plain.of_forward_prefix(2) == pushed * product


def test_the_cut_is_the_cheapest(monkeypatch: pytest.MonkeyPatch):
    costs, _ = prepared("gemma-3")
    monkeypatch.setattr(costs, "of_rows", lambda rows, split: float(rows.sum()) * (3 - split))
    monkeypatch.setattr(costs, "of_forward_prefix", lambda split: 10.0 * split**2)
    rows = 30 * one_row(costs, 1, 3)  # 90, 60 + 10, 30 + 40, 90
    assert costs.best_split(rows) == 1
    monkeypatch.setattr(circuits.attribution.cost, "MOST_FORWARD", 1)
    assert costs.best_split(rows) == 0
