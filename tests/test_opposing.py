"""For and against: total effects are what the graph predicts of ablations, with nothing held."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphs
from circuits.attribution.trace_settings import TargetSettings, TraceSettings
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import NodeKind, SelectionError
from graphs.reports.opposing import named_targets, opposing, total_effects
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
        graphs.intervention(graph, [graphs.SetTo(str(graph.nodes[row]), 0.0)])
        for row in features.tolist()
    ]
    holding = replace(graph, responses=None)  # total effects are with norms held
    predicted = graphs.predict(holding, made, [-1] * len(made))
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
    assert named_targets(graph, "j") == [graph.target_rows()[1]]
    with pytest.raises(
        SelectionError, match=r"has no target 'k': choose one of 'f', 'j', or trace"
    ):
        named_targets(graph, "k")


def test_a_rival_is_another_and_exact_names_go_first(gemma: Subject):
    graph = two_targets(gemma)
    with pytest.raises(SelectionError, match="is the prediction itself"):
        opposing(graph, "f", "f")
    header = graph.provenance
    texts = [
        target.model_copy(update={"text": text})
        for target, text in zip(header.targets, (" f", "f"), strict=True)
    ]
    header = header.model_copy(update={"targets": tuple(texts)})
    graph = replace(graph, provenance=header)
    assert [named_targets(graph, text)[0] for text in (" f", "f")] == graph.target_rows().tolist()


def test_without_activations_effects_over_all_paths_are_not_known(gemma: Subject):
    graph = two_targets(gemma)
    nodes = replace(graph.nodes, activation=np.full(len(graph), np.nan))
    with pytest.raises(SelectionError, match="has no activations of its features"):
        opposing(replace(graph, nodes=nodes), "f")


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
    assert_refused(run(*why, "--not", "Denver"), "has no target 'Denver'")
    assert_refused(run(*why, "--feature", "1/2"), "exclude each other")
