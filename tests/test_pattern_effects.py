"""Changes of attention patterns: the prediction is the derivative of the model's own softmax."""

from __future__ import annotations

import numpy as np
import pytest

from circuits.attention.pattern_effects import pattern_effects
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import intervene
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from graphs import EditError, ModelIdentity, Regime, Scale, Steer, intervention
from graphs.interventions.effects import PatternEffect
from graphs.interventions.heads import EVERYTHING, HeadChoice, HeadPlace, chosen_heads, row_place
from tests.test_head_edits import low_feature
from tests.test_heads import whole_experiment
from tests.tiny import tiny_model, toy_tokenizer

STEP = 1e-4
PLACE = HeadPlace(1, 2, 5)


def rows(
    experiment: Experiment,
    edit,
    regime: Regime,
    heads: HeadChoice = EVERYTHING,
    place: HeadPlace = PLACE,
) -> PatternEffect:
    outcomes = intervene(experiment, [intervention(experiment.graph, [edit])], regime, heads=heads)
    (found,) = pattern_effects(experiment, outcomes, 0, [place])
    return found


def numbers(found: PatternEffect, name: str) -> np.ndarray:
    return np.array([getattr(key, name) for key in found.keys])


def assert_slope(experiment: Experiment, edit, regime: Regime, layer: int) -> None:
    """`edit`: of a step up or down; the head's pattern runs, those of others are held."""
    heads = HeadChoice(running=frozenset({(layer, 2)}))
    place = HeadPlace(layer, 2, 5)
    up, down = (rows(experiment, edit(sign * STEP), regime, heads, place) for sign in (1, -1))
    measured = (numbers(up, "measured") - numbers(down, "measured")) / 2
    predicted = numbers(up, "predicted")
    size = np.abs(predicted).max()
    np.testing.assert_allclose(measured, predicted, rtol=1e-4, atol=1e-4 * size)
    assert size > 1e-9


@pytest.mark.parametrize(("regime", "layer"), [(Regime.FROZEN, 2), (Regime.CONSTRAINED, 1)])
def test_the_prediction_is_the_slope_of_the_running_pattern(
    subject: Subject, regime: Regime, layer: int
):
    """In the constrained regime the block of the head runs, and the norm in front of it."""
    experiment = whole_experiment(subject, "per layer")
    name = str(experiment.graph.nodes[low_feature(experiment)])
    assert_slope(experiment, lambda step: Scale(name, 1 + step), regime, layer)
    vector = np.random.default_rng(1).normal(size=subject.frozen.d_model)
    assert_slope(experiment, lambda step: Steer(0, 5, vector, 10 * step), regime, layer)


def test_the_cap_of_scores_is_part_of_the_slope():
    model = tiny_model("gemma-2", attn_logit_softcapping=0.3)
    frozen = FrozenModel(model)
    known = ModelIdentity(name="capped", architecture="Gemma2ForCausalLM", n_layers=3)
    experiment = whole_experiment(Subject(frozen, toy_tokenizer(), known), "per layer")
    vector = np.random.default_rng(1).normal(size=frozen.d_model)
    assert_slope(experiment, lambda step: Steer(0, 5, vector, step), Regime.CONSTRAINED, 1)


@pytest.mark.parametrize("side", ["queries", "keys", "values"])
def test_the_prediction_is_of_what_reacts(gemma: Subject, side: str):
    experiment = whole_experiment(gemma, "per layer")
    heads = chosen_heads(experiment.graph, **{side: ["1.2"]})
    vector = np.random.default_rng(2).normal(size=gemma.frozen.d_model)
    parts = {}
    for pos in (5, 4):  # the query, and a key
        found = rows(experiment, Steer(0, pos, vector, STEP), Regime.FROZEN, heads)
        parts[pos] = np.abs(numbers(found, "predicted")).max()
        np.testing.assert_allclose(
            numbers(found, "measured"), numbers(found, "predicted"), rtol=0.01, atol=1e-9
        )
    # The query is a key as well, and another position is no query.
    expected = {"queries": (True, False), "keys": (True, True), "values": (False, False)}[side]
    assert tuple(part > 1e-7 for part in parts.values()) == expected


def test_a_held_pattern_is_shown_as_it_would_run(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    edit = Scale(str(experiment.graph.nodes[low_feature(experiment)]), -1.0)
    held = rows(experiment, edit, Regime.FROZEN)
    runs = rows(experiment, edit, Regime.FROZEN, chosen_heads(experiment.graph, running=["1.2"]))
    assert held == runs
    assert np.abs(numbers(held, "measured")).max() > 1e-4
    before = experiment.local.recording.blocks[1].pattern[2, 5].numpy()
    np.testing.assert_array_equal(numbers(held, "before"), before[before > 0])
    assert numbers(held, "after").sum() == pytest.approx(1)


def test_rows_are_of_heads_at_queries(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    graph = experiment.graph
    assert row_place(graph, "1.2") == row_place(graph, "head:1.2@5") == PLACE
    for wrong in ("1.2@5<3", "1.2@3+"):
        with pytest.raises(EditError, match="row of a pattern is HEAD@QUERY"):
            row_place(graph, wrong)
    with pytest.raises(EditError, match=r"no head 1\.7: layer 1 has heads 0 to 3"):
        rows(experiment, Scale("head:0.1", 0.0), Regime.FREE, place=HeadPlace(1, 7, 5))
