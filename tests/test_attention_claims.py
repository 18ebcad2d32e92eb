"""The check of what makes heads look: pairs that scores name against random ones, in the model."""

from __future__ import annotations

import numpy as np
import pytest

import circuits.evaluation.attention_claims as claims
from circuits.attention.pattern_effects import pattern_effects
from circuits.attribution.trace_settings import TraceSettings
from circuits.evaluation.attention_claims import attention_report
from circuits.features.files.source import SourceChoice, read_source
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import read_prompt
from circuits.model.subject import read_subject
from circuits.pipe import trace
from graphs import Regime, Report
from graphs.core.attended import AttentionReport
from graphs.interventions.changes import Change, Intervention
from graphs.interventions.heads import HeadChoice, HeadPlace
from viz.text.checked import report_lines

FOUND = AttentionReport(
    entries=3,
    pairs=15,
    drop=0.54,
    random_pairs=120,
    random_drop=-0.04,
    random_sd=0.15,
    null_probability=0.02,
    singles=150,
    rank_correlation=0.987,
)


@pytest.fixture(scope="module")
def dallas() -> Experiment:
    subject = read_subject("atlas-large")
    source = read_source(subject, SourceChoice())
    prompt = read_prompt("The capital of the state containing Dallas is", subject.tokenizer)
    return prepare(trace(prompt, subject, source, TraceSettings(labels=0)), subject, source)


def test_named_pairs_are_what_makes_heads_look(dallas: Experiment):
    found = attention_report(dallas, 0)
    assert found is not None
    assert (found.entries, found.pairs, found.random_pairs) == (3, 15, 120)
    assert found.drop > found.random_drop + 2 * found.random_sd
    assert abs(found.random_drop) < found.random_sd
    assert found.rank_correlation is not None
    assert found.rank_correlation > 0.95
    assert attention_report(dallas, 0) == found


@pytest.mark.parametrize("side", ["queries", "keys"])
def test_a_single_feature_is_removed_as_an_intervention_would(dallas: Experiment, side: str):
    layer, head, query, key = claims._places(dallas)[0]
    entry = claims._Entry(dallas, layer, head, query, key)
    own = entry.at_query if side == "queries" else entry.at_key
    row = int(own[np.argmax(np.abs(entry.score.score.at_query.weight[own]))])
    pair = [row, -1] if side == "queries" else [-1, row]
    (drop,) = entry._drops(np.array([pair]))
    made = [Intervention("", (Change(entry.score.nodes[row], 0.0),))]
    heads = HeadChoice(**{side: frozenset({(layer, head)})})
    outcomes = intervene(dallas, made, Regime.CONSTRAINED, layer - 1, heads=heads)
    (found,) = pattern_effects(dallas, outcomes, 0, [HeadPlace(layer, head, query)])
    competes = entry.score.competitors > 0

    def odds(name: str) -> float:
        attention = np.array([getattr(one, name) for one in found.keys])
        return float(np.log(attention[key] / attention[competes].sum()))

    assert drop == pytest.approx(odds("before") - odds("after"), abs=1e-5)
    assert abs(drop) > 0.01


def test_a_graph_without_features_below_heads_has_no_such_report(
    dallas: Experiment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "PAIRS", 0)  # none adds to the log odds
    assert attention_report(dallas, 0) is None


def test_the_report_is_stored_and_shown_in_one_line():
    report = Report(generator="", attention=FOUND)
    assert Report.model_validate_json(report.model_dump_json(by_alias=True)) == report
    assert Report.model_validate({"generator": ""}).attention is None
    (line,) = report_lines(report)
    assert line.holds is None
    assert (line.name, line.text) == (
        "attention",
        "removing 15 pairs of features from queries and keys of 3 entries: log odds −0.54 each "
        "(random +0.04 ± 0.15) · rank correlation 0.99 of 150 single features",
    )
