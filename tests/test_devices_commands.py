"""What is done with graphs of a model over several devices, with the numbers of the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from card import card

from circuits import (
    attend,
    attention_entries,
    attention_score,
    evaluate,
    head_paths,
    heads,
    pattern_effects,
    prepare,
    score_pairs,
    trace,
    with_head_nodes,
)
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.audit import audit
from circuits.evaluation.check import check
from circuits.evaluation.evaluation_settings import Ablated, AuditSettings, EvaluationSettings
from circuits.evaluation.first_order import first_order_effects
from circuits.evaluation.profiling import profile
from circuits.evaluation.recomputed import rows_report
from circuits.features.active import FeatureSource
from circuits.features.firing import strongest
from circuits.features.points import Site
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import generate, intervene
from graphs import PromptPair, Regime, Scale, Swap, intervention
from graphs.interventions.heads import EVERYTHING, HeadChoice, HeadPlace
from tests.conftest import cached_subject
from tests.devices import PAIRS, WITH_GRADIENTS, beside, over, sides, unwatched
from tests.test_any_target import EVERYTHING as ALL_TARGETS
from tests.test_card import JOINT
from tests.test_card_commands import EXACT, FEW, TEXTS, same, some_interventions
from tests.test_evaluate import PROMPT, random_autoencoder
from tests.test_head_edits import OTHER
from tests.test_intervene import SETTINGS, source_of
from tests.tiny import tiny_prompt, toy_dictionary

pytestmark = pytest.mark.usefixtures("one_thread")

HARDEST = "cross-layer, skips to every layer"
NAMES = ["gemma-2", "gpt-neox", "mixtral"]
SOME_HEADS = HeadChoice(queries=frozenset({(2, 1)}), keys=frozenset({(2, 1)}))


def both(
    name: str, pair: str, source: FeatureSource, settings: TraceSettings = SETTINGS
) -> tuple[Experiment, Experiment]:
    """One experiment on the CPU, and within `card` over devices."""
    own = cached_subject(name)
    with unwatched():
        graph = trace(tiny_prompt(), own, source, settings)
        expected = prepare(graph, own, source)
    there = over(PAIRS[pair], name)
    return expected, prepare(graph, there, beside(there, source))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize(
    ("name", "kind"),
    [("gemma-2", HARDEST), ("gpt-neox", HARDEST), ("gemma-3", "neurons")],
)
def test_interventions_have_the_effects_of_the_cpu(name: str, kind: str, pair: str):
    with card():
        own, held = both(name, pair, source_of(kind))
        made = some_interventions(own)
        other = trace(tiny_prompt(OTHER), cached_subject(name), source_of(kind), SETTINGS)
        edits = [Scale("head:2.1@5<3", 0.5), Swap("head:2.2@4", "head:2.2@3", other)]
        made.append(intervention(own.graph, [*edits, Scale("head:0.3", 0.0)]))
        for regime in Regime:
            for choice in (EVERYTHING, SOME_HEADS):
                some = made[:-1] if choice.only else made
                expected, found = (
                    intervene(one, some, regime, heads=choice) for one in sides(own, held)
                )
                np.testing.assert_allclose(found.measured, expected.measured, **EXACT)
                np.testing.assert_allclose(found.after.cpu(), expected.after, **EXACT)
        assert generate(held, made[0], 3) == generate(own, made[0], 3)
        assert rows_report(held).difference < 1e-9


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", NAMES)
def test_heads_of_edges_and_paths_are_those_of_the_cpu(name: str, pair: str):
    with card():
        own, held = both(name, pair, source_of(HARDEST))
        edges = heads(own)
        np.testing.assert_allclose(heads(held).parts, edges.parts, **EXACT)
        edge = int(np.abs(edges.parts).sum((1, 2)).argmax())
        ends = int(edges.source[edge]), int(edges.target[edge])
        through = [head_paths(one, *ends).through for one in sides(own, held)]
        np.testing.assert_allclose(*through, **EXACT)
        flows = [attention_entries(one, ends[1]).flow for one in sides(own, held)]
        np.testing.assert_allclose(*flows, **EXACT)


@pytest.mark.parametrize("pair", WITH_GRADIENTS)
@pytest.mark.parametrize("name", NAMES)
def test_scores_looks_and_head_nodes_are_those_of_the_cpu(name: str, pair: str):
    with card():
        own, held = both(name, pair, source_of(HARDEST))
        for layer in (0, 2):
            score = [attention_score(one, layer, 2, 5, 3).score for one in sides(own, held)]
            for side in ("at_query", "at_keys"):
                running = [getattr(one, side).running for one in score]
                np.testing.assert_allclose(*running, **EXACT)
            pairs = [score_pairs(one, layer, 2, 5, 3, 5).weight for one in sides(own, held)]
            np.testing.assert_allclose(*pairs, **EXACT)
        looks = [attend(one, 4).attended for one in sides(own, held)]
        assert [[look.name for look in one.looks] for one in looks if one] == [
            [look.name for look in one.looks] for one in looks[:1] * 2 if one
        ]
        nodes = [with_head_nodes(one, scores=True) for one in sides(own, held)]
        assert list(nodes[0].nodes) == list(nodes[1].nodes)
        for which in ("weights", "score_weights"):
            one, other = (getattr(graph, which).toarray() for graph in nodes)
            np.testing.assert_allclose(other, one, **EXACT)
        made = intervention(own.graph, [Scale(str(own.graph.nodes[one_feature(own)]), 0.5)])
        rows = [
            pattern_effects(one, intervene(one, [made], Regime.FREE), 0, [HeadPlace(2, 2, 5)])[0]
            for one in sides(own, held)
        ]
        changes = [[(key.measured, key.predicted) for key in row.keys] for row in rows]
        np.testing.assert_allclose(*changes, **EXACT)


def one_feature(experiment: Experiment) -> int:
    return int(np.flatnonzero(experiment.row >= 0)[0])


@pytest.mark.parametrize("pair", WITH_GRADIENTS)
@pytest.mark.parametrize("kind", [HARDEST, "neurons", "largest of all layers"])
def test_checks_have_the_numbers_of_the_cpu(kind: str, pair: str):
    source = JOINT if kind == "largest of all layers" else source_of(kind)
    with card():
        own, held = both("gemma-3", pair, source)
        effects = [first_order_effects(one) for one in sides(own, held)]
        np.testing.assert_allclose(*effects, **EXACT)
        expected, found = (check(one, FEW) for one in sides(own, held))
    assert same(found.model_dump(exclude={"rows"}), expected.model_dump(exclude={"rows"}))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", ["gemma-3", "gpt-neox"])
def test_targets_inside_the_model_are_read_where_they_lie(name: str, pair: str):
    settings = TraceSettings(ALL_TARGETS, Expansion(max_features=12), labels=0)
    with card():
        own, held = both(name, pair, toy_dictionary(skip=True, cross_layer=True), settings)
        there = trace(tiny_prompt(), held.subject, held.source, settings)
        np.testing.assert_allclose(there.nodes.value, own.graph.nodes.value, **EXACT)
        difference = abs(there.weights - own.graph.weights).max()
        assert difference < 1e-12 * abs(own.graph.weights.data).max()
        made = some_interventions(own)
        for regime in Regime:
            expected, found = (intervene(one, made, regime) for one in sides(own, held))
            np.testing.assert_allclose(found.measured, expected.measured, **EXACT)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("site", ["transcoders", "a joint top-k", *Site])
def test_dictionaries_are_evaluated_as_on_the_cpu(site: str, pair: str):
    if site == Site.TRANSCODER:
        pytest.skip("the first two are these")
    kinds = {"transcoders": source_of(HARDEST), "a joint top-k": JOINT}
    dictionary = kinds.get(site) or random_autoencoder("gemma-3", Site(site))
    settings = EvaluationSettings(ablated=Ablated.MEAN)
    expected = evaluate(PROMPT, cached_subject("gemma-3"), dictionary, settings)
    with card():
        there = over(PAIRS[pair], "gemma-3")
        placed = beside(there, dictionary) if isinstance(dictionary, TranscoderSet) else dictionary
        found = evaluate(PROMPT, there, placed, settings)
        listed = strongest(there.frozen, tiny_prompt(), placed, set(), 3)
    assert same(found.as_json(), expected.as_json())
    own = strongest(cached_subject("gemma-3").frozen, tiny_prompt(), dictionary, set(), 3)
    assert [replace(one, activation=0.0) for one in listed] == [
        replace(one, activation=0.0) for one in own
    ]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", [HARDEST, "neurons"])
def test_profiles_and_audits_are_those_of_the_cpu(kind: str, pair: str):
    source, own = source_of(kind), cached_subject("gemma-3")
    settings = AuditSettings(
        mediators=4, random_sets=2, trace=TraceSettings(SETTINGS.targets, SETTINGS.expansion, 4)
    )
    asked = PromptPair(first=TEXTS[0], second=TEXTS[1])
    with card():
        there = over(PAIRS[pair], "gemma-3")
        placed = beside(there, source)
        expected, found = (profile(*one, TEXTS) for one in sides((own, source), (there, placed)))
        audits = [audit(asked, *one, settings)[0] for one in sides((own, source), (there, placed))]
    assert found.promoted == expected.promoted
    np.testing.assert_allclose(found.activation.toarray(), expected.activation.toarray(), **EXACT)
    assert same(audits[1].model_dump(), audits[0].model_dump())
