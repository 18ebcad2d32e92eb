"""Scores of attention taken apart: parts add up to what the model computes, and predict it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits.attention.meetings import LayerMeeting
from circuits.attention.scores import attention_score, score_pairs
from circuits.attention.strongest_pairs import strongest_pairs
from circuits.model.subject import Subject
from circuits.recording.record import Hooks, record
from graphs import NodeKind
from tests.conftest import cached_subject
from tests.test_heads import SOURCES, whole_experiment
from tests.tiny import tiny_prompt
from tests.tolerances import EXACT

LAYERS, QUERY = range(3), 5
PLACES = ((0, 0, 3), (1, 3, 0), (1, 1, 5), (2, 2, 3))  # layer, head, key


@pytest.mark.parametrize("kind", SOURCES)
def test_parts_of_scores_add_up_on_both_sides(subject: Subject, kind: str):
    experiment = whole_experiment(subject, kind)
    for layer, head, key in PLACES:
        found = attention_score(experiment, layer, head, QUERY, key)
        assert found.score.miss < 1e-9
        assert found.odds is not None
        assert found.odds.miss < 1e-9


def test_scores_are_those_of_the_model(subject: Subject):
    """Patterns, which the model itself has computed, follow from them."""
    experiment = whole_experiment(subject, "per layer")
    for layer, head, key in PLACES:
        pattern = experiment.local.recording.blocks[layer].pattern[head, QUERY].numpy()
        found = attention_score(experiment, layer, head, QUERY, key)
        np.testing.assert_allclose(found.attention, pattern, **EXACT)
        assert found.odds is not None
        if found.log_odds is None:  # out of the window
            continue
        np.testing.assert_allclose(found.odds.value - found.entropy, found.log_odds, **EXACT)
        rivals = pattern.copy()
        rivals[[0, key]] = 0  # the prefix does not compete
        np.testing.assert_allclose(found.log_odds, np.log(pattern[key] / rivals.sum()), **EXACT)


def test_patterns_are_those_of_a_plain_pass(subject: Subject):
    """The recording's attention in float64 is the model's own, but for rounding to float32."""
    frozen, ids = subject.frozen, torch.tensor([tiny_prompt().ids])
    recording = record(frozen, tiny_prompt())
    before = frozen.model.config._attn_implementation
    frozen.model.set_attn_implementation("eager")
    with torch.no_grad():
        own = frozen.model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    frozen.model.set_attn_implementation(before)
    for block, pattern in zip(recording.blocks, own, strict=True):
        torch.testing.assert_close(block.pattern, pattern[0].double(), rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("kind", SOURCES)
def test_pairs_add_up_to_the_score(subject: Subject, kind: str):
    experiment = whole_experiment(subject, kind)
    for layer in LAYERS:
        found = score_pairs(experiment, layer, 1, QUERY, 3, count=10**6)
        taken = attention_score(experiment, layer, 1, QUERY, 3)
        score, nodes = taken.score, taken.nodes
        np.testing.assert_allclose(found.value, score.value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.weight.sum(), score.value, rtol=1e-7, atol=1e-11)
        assert found.share == pytest.approx(1)
        assert found.energy == pytest.approx(1)
        squares = (found.singular_values**2).sum()
        np.testing.assert_allclose(squares, (found.weight**2).sum(), rtol=1e-8)
        # A component's pairs add up to its part of the score.
        for component in np.flatnonzero(nodes.is_kind(NodeKind.TOKEN))[1:].tolist():
            own = found.weight[found.query == component].sum()
            np.testing.assert_allclose(own, score.at_query.weight[component], atol=1e-12)
            own = found.weight[found.key == component].sum()
            np.testing.assert_allclose(own, score.at_keys.weight[component], atol=1e-12)


def test_with_norms_running_parts_are_the_slope_of_the_log_odds(subject: Subject):
    """Finite differences through the model's own softmax: residuals change in front of a layer."""
    frozen, prompt, layer, head, query, key = subject.frozen, tiny_prompt(), 1, 2, 5, 3
    experiment = whole_experiment(subject, "per layer")
    recording = experiment.local.recording
    found = attention_score(experiment, layer, head, query, key)
    assert found.odds is not None
    meeting = LayerMeeting(frozen, recording, layer)
    capped = meeting.recorded.softcap
    slope = 1 if capped is None else 1 - np.tanh(found.scores / capped) ** 2
    own = np.eye(len(prompt))[key]
    weights = (own - found.competitors) * slope
    generator = torch.Generator().manual_seed(0)

    def log_odds(changed: dict[int, torch.Tensor]) -> float:
        """Among the same keys, each with its share of the competition held."""

        def add(residual: torch.Tensor) -> torch.Tensor:
            moved = residual.clone()
            for pos, vector in changed.items():
                moved[:, pos] += vector
            return moved

        with Hooks() as hooks:
            hooks.before(frozen.modules[layer], add)
            pattern = record(frozen, prompt).blocks[layer].pattern[head, query].numpy()
        shares = np.log(pattern, where=pattern > 0, out=np.zeros_like(pattern))
        return float((own - found.competitors) @ shares)

    step = 1e-5
    sides = [
        side(head, query, weights, running=True).covector
        for side in (meeting.at_query, meeting.at_keys)
    ]
    for pos in (query, key, query - 1):
        vector = torch.randn(frozen.d_model, generator=generator, dtype=torch.float64)
        up, down = log_odds({pos: step * vector}), log_odds({pos: -step * vector})
        slope_there = sum(float(covector[pos] @ vector) for covector in sides)
        np.testing.assert_allclose((up - down) / (2 * step), slope_there, rtol=1e-5, atol=1e-8)
    assert all(float(covector.abs().max()) > 1e-6 for covector in sides)


def test_what_every_key_shares_is_no_reason():
    """With norms running, scores do not depend on the residual's size: the parts cancel."""
    experiment = whole_experiment(cached_subject("gemma-3"), "per layer")
    for layer in (1, 2):
        found = attention_score(experiment, layer, 1, QUERY, 3)
        for side in (found.score.at_query, found.score.at_keys):
            assert abs(side.running.sum()) < 1e-9 * np.abs(side.running).sum()
            assert abs(side.weight.sum()) > 1e-4 * np.abs(side.weight).sum()


def test_competitors_can_be_chosen(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    found = attention_score(experiment, 1, 0, QUERY, 3, rivals=[4])
    assert found.odds is not None
    assert found.odds.value == pytest.approx(found.scores[3] - found.scores[4])
    assert found.entropy == 0
    assert found.log_odds == pytest.approx(np.log(found.attention[3] / found.attention[4]))


def test_where_nothing_competes_there_are_no_odds(gemma: Subject):
    found = attention_score(whole_experiment(gemma, "per layer"), 1, 0, query=1, key=1)
    assert found.odds is None
    assert found.log_odds is None
    assert found.score.miss < 1e-9


def test_the_strongest_pairs_are_those_of_all_products(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(3)
    for n_left, n_right, count in ((700, 900, 25), (3, 2, 10), (500, 1, 5), (40, 30, 1)):
        scale = torch.rand(n_left, generator=generator).double() ** 4
        left = torch.randn(8, n_left, generator=generator).double() * scale
        right = torch.randn(8, n_right, generator=generator).double()
        products = left.T @ right
        most = products.abs().flatten().sort(descending=True).values[:count].numpy()
        for limit in (10**9, 0):
            monkeypatch.setattr("circuits.attention.strongest_pairs.MOST_ADDED", limit)
            found = strongest_pairs(left, right, count)
            np.testing.assert_allclose(np.abs(found.product), most, **EXACT)
            there = products[found.left, found.right]
            np.testing.assert_allclose(found.product, there, **EXACT)
            assert (found.total is None) == (limit == 0)
            if found.total is not None:
                assert found.total == pytest.approx(float(products.abs().sum()))


def test_a_layer_that_is_read_through_no_norm_has_no_running_one():
    """OLMo 2 norms what attention writes, and queries and keys."""
    experiment = whole_experiment(cached_subject("olmo-2"), "per layer")
    local = experiment.local
    assert local.frozen.blocks[1].attention_norm.eps is None
    found = attention_score(experiment, 1, 1, QUERY, 3)
    assert found.score.miss < 1e-9
    assert np.abs(found.score.at_query.running - found.score.at_query.weight).max() > 1e-6


def test_recorded_tensors_are_left_as_they_are(gemma: Subject):
    local = whole_experiment(gemma, "per layer").local
    given = local.recording.blocks[1].attention_given
    before = {name: repr(value) for name, value in given.items()}
    LayerMeeting(local.frozen, local.recording, 1).at_query(0, 5, np.ones(6))
    assert {name: repr(value) for name, value in given.items()} == before
    assert replace(local.recording.blocks[1], attention_given=given) is not None
