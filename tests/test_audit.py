"""Audits: what carries the difference between two prompts, measured in the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphs
from circuits.atlas.shipped import atlas_transcoders
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.audit import audit
from circuits.evaluation.contrast import AlignedFeature, DifferingFeatures, differing_features
from circuits.evaluation.evaluation_settings import AuditSettings
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from graphs import Audited, Mediator, PromptPair, Regime
from graphs.core.report import SetReport
from graphs.interventions.mediators import Answer, by_kind, recurring
from tests.test_intervene import SETTINGS, source_of
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

KINDS = ("cross-layer, normalised to mlp output, topk", "neurons")
FEW = AuditSettings(
    mediators=6,
    random_sets=3,
    trace=TraceSettings(expansion=Expansion(everything=True, kept_share=1.0), labels=0),
)
PAIR = PromptPair(first="bfjfoi", second="bfkfoi")


def experiment_on(subject: Subject, source: FeatureSource, text: str) -> Experiment:
    prompt = read_prompt(text, subject.tokenizer)
    return prepare(trace(prompt, subject, source, SETTINGS), subject, source)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_either_prompt(gemma: Subject, kind: str):
    source = source_of(kind)
    both = [experiment_on(gemma, source, text) for text in (PAIR.first, PAIR.second)]
    found = differing_features(both[0], both[1])
    assert len(found)
    for side, one in enumerate(both):
        known = dict(
            zip(one.local.features.places(), one.local.features.activation.tolist(), strict=True)
        )
        for place, activation in zip(found.places, found.activation[:, side], strict=True):
            key = place.layer, (place.first, place.second)[side], place.row
            if key in known:
                assert activation == pytest.approx(known[key], rel=1e-12)
            elif kind != "neurons":  # of which only some are chosen as active
                assert activation == 0
    # Positions before the first token that differs are alike in both prompts.
    assert min(place.first for place in found.places) == 2


def test_a_position_without_a_partner_has_features_of_one_prompt_only(gemma: Subject):
    both = [experiment_on(gemma, toy_dictionary(), text) for text in ("bfjfoi", "bfjkkfoi")]
    found = differing_features(both[0], both[1])
    alone = [row for row, place in enumerate(found.places) if place.first < 0]
    assert {found.places[row].second for row in alone} == {3, 4}
    assert np.all(found.activation[alone, 0] == 0)
    assert np.all(found.influence[alone, 0] == 0)
    assert found.swap(alone, 0).changes == ()
    assert {change.offset for change in found.swap(alone, 1).changes} == {0.0}


def test_positions_that_are_context_only_have_no_features(gemma: Subject):
    both = []
    for context in (1, 3):
        graph = trace(tiny_prompt(n_prefix=context), gemma, toy_dictionary(), SETTINGS)
        both.append(prepare(graph, gemma, toy_dictionary()))
    found = differing_features(both[0], both[1])
    below = [place for place in found.places if place.first in (1, 2)]
    assert below
    assert {place.second for place in below} == {-1}


def test_what_has_no_place_in_a_prompt_is_not_changed_there(gemma: Subject):
    pair = PromptPair(first="bfjfoi", second="bfjkkfoi")
    settings = replace(FEW, mediators=1000)
    found, _ = audit(pair, gemma, toy_dictionary(), settings)
    alone = [one for one in found.mediators if one.positions[0] is None]
    assert alone
    for one in alone:
        assert one.moved[0] is None
        assert one.moved[1] == one.share
        assert one.tokens[0] == ""


def test_two_prompts_of_one_form_differ_in_nothing_if_they_are_one(gemma: Subject):
    one = experiment_on(gemma, toy_dictionary(), PAIR.first)
    assert len(differing_features(one, one)) == 0


def test_what_is_at_stake_is_influence_that_is_passed_on_otherwise():
    found = DifferingFeatures(
        (AlignedFeature(0, 1, 2, 2), AlignedFeature(0, 2, 2, 2)),
        np.array([[2.0, 1.0], [0.0, 3.0]]),
        np.array([[0.3, 0.1], [0.0, 0.2]]),
    )
    np.testing.assert_allclose(found.attribution, [0.4 * 0.5, 0.2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_carrier_moves_what_setting_it_by_hand_moves(gemma: Subject, kind: str):
    source = source_of(kind)
    found, traced = audit(PAIR, gemma, source, FEW)
    assert len(found.mediators) == 6
    values = [float(graph.nodes.value[graph.target_rows()[0]]) for graph in traced]
    assert [one.value for one in found.answers] == values
    for mediator in found.mediators:
        for side, graph in enumerate(traced):
            name = f"feature:{mediator.feature}@{mediator.positions[side]}"
            edit = graphs.SetTo(name, mediator.activations[1 - side])
            made = [graphs.intervention(graph, [edit])]
            outcomes = intervene(prepare(graph, gemma, source), made, Regime.FREE)
            change = float(outcomes.measured[0, graph.target_rows()[0]])
            share = change / (values[1 - side] - values[side])
            np.testing.assert_allclose(mediator.moved[side], share, **EXACT)


def test_the_order_of_two_prompts_is_of_no_matter(gemma: Subject):
    source = toy_dictionary()
    found, _ = audit(PAIR, gemma, source, FEW)
    turned = PromptPair(first=PAIR.second, second=PAIR.first)
    other, _ = audit(turned, gemma, source, FEW)
    assert [one.feature for one in other.mediators] == [one.feature for one in found.mediators]
    for one, two in zip(found.mediators, other.mediators, strict=True):
        np.testing.assert_allclose(one.moved, two.moved[::-1], **EXACT)
    assert found.together is not None
    assert other.together is not None
    np.testing.assert_allclose(found.together.share, other.together.share, **EXACT)


def test_both_graphs_explain_one_target_and_keep_what_was_measured(gemma: Subject):
    found, traced = audit(PAIR, gemma, toy_dictionary(), FEW)
    assert [one.provenance.targets[0].text for one in traced] == [found.target] * 2
    for graph in traced:
        assert len(graph.provenance.measured) == 6
        assert {one.regime for one in graph.provenance.measured} == {Regime.FREE}


def test_what_is_asked_can_be_named(gemma: Subject):
    asked = PAIR.model_copy(update={"target": "f", "against": "k"})
    assert audit(asked, gemma, toy_dictionary(), FEW)[0].target == "f − k"
    alone = PAIR.model_copy(update={"target": "f"})
    assert audit(alone, gemma, toy_dictionary(), FEW)[0].target == "f"


def test_without_a_difference_there_are_no_shares(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("circuits.evaluation.audit.LEAST_DIFFERENCE", 1e9)
    found, _ = audit(PAIR, gemma, toy_dictionary(), FEW)
    assert found.together is None
    assert {one.moved for one in found.mediators} == {(None, None)}
    assert recurring([found]) == []


def test_features_of_the_state_carry_the_capital():
    subject = read_subject("atlas-small")
    source = read_transcoders(str(atlas_transcoders("atlas-small")))
    asked = "The capital of the state containing {} is"
    pair = PromptPair(first=asked.format("Dallas"), second=asked.format("Oakland"))
    found, _ = audit(pair, subject, source)
    assert [one.text.strip() for one in found.answers] == ["Austin", "Sacramento"]
    assert found.answers_differ
    assert found.together is not None
    assert found.together.share > 0.5
    assert found.together.share > found.together.random_mean + 2 * found.together.random_sd
    says = " ".join(one.label for one in found.mediators[:5])
    assert "Texas" in says or "Lone Star State" in says
    assert all(one.positions[0] == one.positions[1] for one in found.mediators)


def mediator(feature: str, share: float, at: int = 1, label: str = "") -> Mediator:
    layer, index = map(int, feature.split("/"))
    return Mediator(
        layer=layer,
        index=index,
        positions=(at, at),
        tokens=("a", "a"),
        label=label,
        activations=(1.0, 0.0),
        influence=(0.1, 0.0),
        moved=(share, share),
    )


def audited(name: str, difference: float, *mediators: Mediator, kind: str = "") -> Audited:
    return Audited(
        pair=PromptPair(first=f"{name} one", second=f"{name} other", name=name, kind=kind),
        target="a − b",
        answers=(
            Answer(text="a", probability=0.9, value=difference),
            Answer(text="b", probability=0.8, value=0.0),
        ),
        in_common=0.5,
        mediators=mediators,
        together=SetReport(
            features=2, share=0.8, random_mean=0.1, random_sd=0.05, null_probability=0.0
        ),
    )


def test_features_recur_by_what_they_move():
    one = audited("x", 10.0, mediator("1/2", 0.5), mediator("1/2", 0.1, at=3), mediator("3/4", 0.3))
    other = audited("y", 30.0, mediator("1/2", -0.1, label="a name"))
    first, second = recurring([one, other])
    assert (first.feature, first.pairs, first.label) == ("1/2", 2, "a name")
    assert first.moved == pytest.approx((0.6 * 10 + 0.1 * 30) / 2)
    assert first.share == pytest.approx((0.6 * 10 - 0.1 * 30) / 40)
    assert first.same_sign == 0.5
    assert first.largest == "x"
    assert (second.feature, second.pairs, second.share) == ("3/4", 1, pytest.approx(0.3))


def test_kinds_are_told_apart():
    same = audited("z", 2.0, kind="hint")
    same = same.model_copy(update={"answers": (same.answers[0], same.answers[0]), "together": None})
    hint, name = by_kind([same, audited("x", 10.0, kind="name")])
    assert (hint.kind, hint.pairs, hint.answers_differ, hint.together) == ("hint", 1, 0, None)
    assert (name.kind, name.answers_differ, name.difference) == ("name", 1, 10.0)
    assert (name.together, name.null) == (0.8, 0.1)


GOOD = '{"first": "a b", "second": "a c"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nothing", "Invalid JSON"),
        (b"[1]", "Input should be an object"),
        (b'{"first": "a"}', "second: Field required"),
        (b'{"first": "a", "second": "a"}', "the two prompts are the same"),
        (b'{"first": "a", "second": ""}', "second: String should have at least 1 character"),
        (b'{"first": "a", "second": 7}', "second: Input should be a valid string"),
        (b'{"first": "a", "second": "b", "name": "../b"}', "name: String should match pattern"),
        (b'{"first": "a", "second": "b", "against": "c"}', "against needs a target"),
        (b'{"first": "a", "second": "b", "else": "c"}', "else: Extra inputs are not permitted"),
        (b'{"first": "\xff", "second": "b"}', "Invalid JSON"),
        (b"[" * 5000, "Invalid JSON"),
        (GOOD.encode(), "the same name as line 1"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_one_bad_line_does_not_stop_the_rest(tmp_path: Path, line: bytes, reason: str):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"\n".join([GOOD.encode(), b"", line, b'{"first": "d", "second": "e"}']))
    one, bad, other = graphs.read_pairs(path)
    assert one.pair == PromptPair(first="a b", second="a c")
    assert other.number == 4
    assert other.pair is not None
    assert bad.pair is None
    assert bad.problem.startswith("Line 3 ")
    assert reason in bad.problem
    assert bad.problem.endswith(".")


def test_prompts_keep_their_line_separators_and_a_byte_order_mark_is_no_text(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    text = json.dumps({"first": "a\u2028b", "second": "a\nc"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    (line,) = graphs.read_pairs(path)
    assert line.pair == PromptPair(first="a\u2028b", second="a\nc")


def test_a_pair_is_called_by_its_prompts_and_what_is_asked():
    one = PromptPair(first="a", second="b")
    assert one.identifier == PromptPair(first="a", second="b", kind="name").identifier
    assert one.identifier != PromptPair(first="a", second="b", target="c").identifier
    assert one.identifier != PromptPair(first="b", second="a").identifier
    assert replace_name(one, "mine").identifier == "mine"


def replace_name(pair: PromptPair, name: str) -> PromptPair:
    return pair.model_copy(update={"name": name})
