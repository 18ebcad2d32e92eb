"""Rows on an accelerator: thinned as those of the CPU, and swept in groups that cost least."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

import circuits.attribution.groups
from circuits.attribution.dense_rows import thin_
from circuits.attribution.groups import groups_of
from circuits.attribution.rows import thin
from tests.conftest import cached_subject


def rows(kind: str, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    found = torch.randn(7, 400, generator=generator, dtype=dtype)
    if kind == "heavy tails":
        found = found**9 * torch.logspace(-30, 20, 7, dtype=dtype)[:, None]
    elif kind == "ties":
        found = (found * 2).round()
    elif kind == "mostly zeros":
        found[torch.rand(7, 400, generator=generator) < 0.9] = 0
        found[3] = 0
    return found


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "ties", "mostly zeros"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_weights_are_kept_as_on_the_cpu(dtype: torch.dtype, kind: str, share: float):
    block = rows(kind, dtype)
    own, found = thin(block.numpy().copy(), share), thin_(block, share)
    np.testing.assert_array_equal(block.count_nonzero(1), own.counts)
    np.testing.assert_array_equal(found.counts, own.counts)
    row, column = block.nonzero(as_tuple=True)
    np.testing.assert_array_equal(column, own.columns)
    np.testing.assert_array_equal(block[row, column], own.weights)
    for name in ("sums", "totals", "dropped", "dropped_absolute"):
        expected, scale = getattr(own, name), own.totals
        assert (np.abs(getattr(found, name).numpy() - expected) <= 1e-12 * scale).all(), name


def random_targets(n_layers: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, n_layers, 60), generator.choice([2, 3, 5, 9, 30, 31], 60)


def seconds(layers: np.ndarray, pos: np.ndarray, groups: list[np.ndarray], frozen) -> float:
    """What a plan costs, by its definition."""
    module = circuits.attribution.groups
    launch = module.LAUNCHES * frozen.n_layers * module.LAUNCH
    return sum(
        launch
        + (layers[group] + 1).sum() * module._flops(frozen, int(pos[group].max()) + 1) / module.RATE
        for group in groups
    )


@pytest.mark.parametrize("rate", [1e5, 1e7, 1e9, 4e13])
def test_groups_cost_least_of_all_plans(rate: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(circuits.attribution.groups, "RATE", rate)
    frozen = cached_subject("gemma-3").frozen
    layers, pos = random_targets(frozen.n_layers)
    found = groups_of(2 * layers, pos, frozen, 2**40)
    assert sorted(np.concatenate(found).tolist()) == list(range(60))
    assert all((np.diff(layers[group]) <= 0).all() for group in found)
    ends = np.unique(pos)[:-1]
    plans = []
    for count in range(len(ends) + 1):
        for cuts in combinations(ends, count):
            place = np.searchsorted(np.array(cuts), pos)
            plans.append([np.flatnonzero(place == number) for number in range(count + 1)])
    best = min(seconds(layers, pos, plan, frozen) for plan in plans)
    assert seconds(layers, pos, found, frozen) == pytest.approx(best)
    assert 1 <= len(found) <= len(ends) + 1


def test_a_group_fits_into_memory(monkeypatch: pytest.MonkeyPatch):
    frozen = cached_subject("gemma-3").frozen
    layers, pos = random_targets(frozen.n_layers)
    one = circuits.attribution.groups._bytes(frozen, 32)
    monkeypatch.setattr(circuits.attribution.groups, "LAUNCH", 1.0)  # one group, if it did fit
    found = groups_of(2 * layers, pos, frozen, int(7 * one))
    assert sorted(np.concatenate(found).tolist()) == list(range(60))
    assert [len(group) for group in found] == [7] * 8 + [4]


def test_many_positions_are_planned_by_some_of_them():
    frozen = cached_subject("gemma-3").frozen
    layers, pos = np.ones(500, dtype=int), np.arange(500)
    found = groups_of(2 * layers, pos, frozen, 2**40)
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
