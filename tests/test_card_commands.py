"""What is done with graphs on an accelerator: interventions, checks, audits, profiles, features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from card import Watch, card, on_card

import graphs
from circuits.attribution.trace_settings import TraceSettings
from circuits.evaluation.audit import audit
from circuits.evaluation.check import check
from circuits.evaluation.evaluation_settings import AuditSettings, CheckSettings
from circuits.evaluation.profiling import profile
from circuits.evaluation.recomputed import rows_report
from circuits.features.active import FeatureSource
from circuits.features.firing import strongest
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import generate, intervene
from circuits.pipe import trace
from graphs import Intervention, PromptPair, Regime, Scale, SetTo, Steer, intervention
from tests.conftest import cached_subject
from tests.devices import sides, unwatched
from tests.test_card import JOINT, in_type, on_the_card
from tests.test_intervene import SETTINGS, some_edits, source_of
from tests.tiny import tiny_prompt, tiny_subject, toy_dictionary

KINDS = ("per layer", "cross-layer, skip", "per layer, skip, residual to mlp output", "neurons")
EXACT = {"rtol": 1e-9, "atol": 1e-12}
FEW = CheckSettings(features=4, strongest=3, random_sets=2, random_orders=1)
TEXTS = ["bfjfoi", "bfkfoi"]


def source(kind: str) -> FeatureSource:
    return JOINT if kind == "largest of all layers" else source_of(kind)


def both(name: str, of: FeatureSource) -> tuple[Experiment, Experiment]:
    """One experiment on the CPU, and within `card` on the card."""
    own = cached_subject(name)
    with unwatched():
        graph = trace(tiny_prompt(), own, of, SETTINGS)
        expected = prepare(graph, own, of)
    return expected, prepare(graph, on_card(tiny_subject(name)), on_the_card(of))


def some_interventions(experiment: Experiment) -> list[Intervention]:
    """Edits of features of all layers and of an error, and a steering vector."""
    edits: list[SetTo | Scale | graphs.Add | Steer] = [*some_edits(experiment, 4)]
    vector = np.arange(experiment.local.frozen.d_model) / 10
    edits.append(Steer(1, 2, vector, 0.5))
    return [intervention(experiment.graph, [edit]) for edit in edits]


def waits(watch: Watch) -> int:
    found = sum(watch.waits.values())
    watch.clear()
    return found


@pytest.mark.parametrize("kind", [*KINDS, "largest of all layers"])
@pytest.mark.parametrize("name", ["gemma-3", "gpt-neox"])
def test_interventions_have_the_effects_of_the_cpu(name: str, kind: str):
    with card():
        own, held = both(name, source(kind))
        made = some_interventions(own)
        for regime in Regime:
            expected, found = (intervene(one, made, regime) for one in sides(own, held))
            np.testing.assert_allclose(found.measured, expected.measured, **EXACT)
            np.testing.assert_allclose(found.after.cpu(), expected.after, **EXACT)
        assert generate(held, made[0], 3) == generate(own, made[0], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_waits_as_often_for_many_interventions_as_for_one(kind: str):
    """Once for what the graph cannot predict, for logits that are not finite, for the results."""
    with card() as watch:
        held = both("gemma-3", source(kind))[1]
        made = some_interventions(held)
        for regime in Regime:
            intervene(held, made, regime)  # what is computed once
            watch.clear()
            intervene(held, made[:1], regime)
            few = waits(watch)
            intervene(held, made, regime)
            assert waits(watch) == few <= 4


@pytest.mark.parametrize("kind", KINDS)
def test_checks_have_the_numbers_of_the_cpu(kind: str):
    with card():
        expected, found = (check(one, FEW) for one in sides(*both("gemma-3", source(kind))))
    assert expected.rows is not None
    assert found.rows is not None
    assert found.rows.difference < 1e-9
    assert same(found.model_dump(exclude={"rows"}), expected.model_dump(exclude={"rows"}))


def same(found: object, expected: object) -> bool:
    """Whether two nested values have the same numbers."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        return all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (tuple, list)):
        assert isinstance(found, (tuple, list))
        return all(same(one, other) for one, other in zip(found, expected, strict=True))
    if not isinstance(expected, float):
        return found == expected
    return found == pytest.approx(expected, rel=1e-7, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_audits_find_the_mediators_of_the_cpu(kind: str):
    pair, settings = (
        PromptPair(first=TEXTS[0], second=TEXTS[1]),
        AuditSettings(
            mediators=4, random_sets=2, trace=TraceSettings(SETTINGS.targets, SETTINGS.expansion, 4)
        ),
    )
    expected, _ = audit(pair, cached_subject("gemma-3"), source(kind), settings)
    with card():
        held = on_card(tiny_subject("gemma-3"))
        found, _ = audit(pair, held, on_the_card(source(kind)), settings)
    assert found.mediators
    assert same(found.model_dump(), expected.model_dump())


@pytest.mark.parametrize("kind", KINDS)
def test_profiles_are_those_of_the_cpu(kind: str):
    expected = profile(cached_subject("gemma-3"), source(kind), TEXTS)
    with card():
        found = profile(on_card(tiny_subject("gemma-3")), on_the_card(source(kind)), TEXTS)
    assert found.promoted == expected.promoted
    assert np.array_equal(found.index, expected.index)
    np.testing.assert_allclose(found.activation.toarray(), expected.activation.toarray(), **EXACT)
    np.testing.assert_allclose(found.decoder, expected.decoder, rtol=1e-6)


def test_features_are_listed_as_on_the_cpu():
    dictionary = toy_dictionary()
    expected = strongest(cached_subject("gemma-3").frozen, tiny_prompt(), dictionary, set(), 3)
    with card():
        held, placed = on_card(tiny_subject("gemma-3")), on_the_card(dictionary)
        assert isinstance(placed, TranscoderSet)
        found = strongest(held.frozen, tiny_prompt(), placed, set(), 3)
    assert [one.index for one in found] == [one.index for one in expected]
    assert [one.activation for one in found] == pytest.approx([o.activation for o in expected])


def test_what_is_measured_does_not_depend_on_the_tensor_cores_of_the_program_around():
    with card():
        held = on_card(in_type("gemma-3", torch.float32))
        graph = trace(tiny_prompt(), held, on_the_card(toy_dictionary()), SETTINGS)

        def effects() -> tuple[np.ndarray, float]:
            experiment = prepare(graph, held, on_the_card(toy_dictionary()))
            outcomes = intervene(experiment, some_interventions(experiment), Regime.FREE)
            return outcomes.measured, rows_report(experiment).difference

        expected = effects()
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            found = effects()
        finally:
            torch.backends.cuda.matmul.fp32_precision = "none"
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]
