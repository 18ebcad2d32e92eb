"""For and against: total effects are what the graph predicts of ablations, with nothing held."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import graphs
from circuits.subject import Subject
from circuits.targets import TargetSettings
from circuits.trace import TraceSettings, trace
from graphs import NodeKind, SelectionError
from graphs.opposing import opposing, target_row, total_effects
from tests.test_cli import assert_refused, run
from tests.test_intervene import SETTINGS, experiment_on, source_of
from tests.tiny import tiny_prompt, toy_dictionary
from tests.tolerances import EXACT


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_a_total_effect_is_what_ablating_the_feature_is_predicted_to_take_away(
    gemma: Subject, kind: str
):
    graph = experiment_on(gemma, source_of(kind)).graph
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    made = [
        graphs.intervention(graph, [graphs.Set(str(graph.nodes[row]), 0.0)])
        for row in features.tolist()
    ]
    predicted = graphs.predict(graph, made, [-1] * len(made))
    for target in graph.target_rows().tolist():
        np.testing.assert_allclose(
            total_effects(graph, target)[features], -predicted[:, target], **EXACT
        )


def two_targets(gemma: Subject) -> graphs.AttributionGraph:
    settings = TraceSettings(TargetSettings(tokens=(5, 9)), SETTINGS.expansion, labels=0)
    return trace(tiny_prompt(), gemma, toy_dictionary(), settings)


def test_a_contrast_is_the_difference_of_two_effects(gemma: Subject):
    both = two_targets(gemma)
    settings = TraceSettings(TargetSettings(tokens=(5,), against=9), SETTINGS.expansion, labels=0)
    contrast = trace(tiny_prompt(), gemma, toy_dictionary(), settings)
    found = opposing(both, "f", "j", count=1000)
    alone = opposing(contrast, "f − j", count=1000)
    assert [one.node for one in found.helping] == [one.node for one in alone.helping]
    assert [one.node for one in found.hindering] == [one.node for one in alone.hindering]
    np.testing.assert_allclose(
        [one.difference for one in found.helping], [one.on for one in alone.helping], **EXACT
    )
    assert alone.suppressing == ()


def test_every_list_has_its_sign_and_its_order(gemma: Subject):
    found = opposing(two_targets(gemma), "f", "j", count=5)
    for one in (*found.helping, *found.hindering, *found.suppressing):
        assert one.on_rival is not None
    helping = [one.difference for one in found.helping]
    assert helping == sorted(helping, reverse=True)
    assert helping[-1] > 0
    hindering = [one.difference for one in found.hindering]
    assert hindering == sorted(hindering)
    assert hindering[-1] < 0
    suppressing = [one.on_rival or 0.0 for one in found.suppressing]
    assert suppressing == sorted(suppressing)
    assert suppressing[-1] < 0
    assert len(helping) == len(suppressing) == 5


def test_a_target_that_is_not_explained_is_refused(gemma: Subject):
    graph = two_targets(gemma)
    assert target_row(graph, "j") == graph.target_rows()[1]
    with pytest.raises(SelectionError, match=r"explains no 'k': choose one of 'f', 'j', or trace"):
        target_row(graph, "k")


def test_show_says_why_this_and_not_that(tmp_path: Path):
    out = tmp_path / "graph.safetensors"
    asked = ("--target", " Austin", "--target", " Sacramento")
    prompt = "The capital of the state containing Dallas is"
    assert run("trace", prompt, "--model", "atlas-small", *asked, "--out", out).exit_code == 0
    why = ("show", out, "--why", "Austin")
    text = run(*why, "--not", "Sacramento").stdout
    assert "for 'Austin' and not 'Sacramento'" in text
    assert "suppress 'Sacramento'" in text
    told = json.loads(run(*why, "--not", "Sacramento", "--json").stdout)
    assert told["helping"][0]["node"] in text
    assert json.loads(run(*why, "--json").stdout)["suppressing"] == []
    assert "against 'Austin'" in run(*why).stdout
    assert_refused(run("show", out, "--not", "Austin"), "--not needs --why")
    assert_refused(run(*why, "--not", "Denver"), "explains no 'Denver'")
    assert_refused(run(*why, "--feature", "1/2"), "exclude each other")
