"""The adversary: few features outside a circuit, chosen in the model to change most."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Bool, Float
from numpy import ndarray

import graphs
from circuits.evaluation.ablation import Ablation
from circuits.evaluation.adversary import adversary, greedy_steps
from circuits.evaluation.check import check
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.evaluation.first_order import first_order_effects
from circuits.interventions.experiment import Experiment, prepare
from circuits.interventions.intervene import intervene
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import Regime
from graphs.core.report import MOST_OUTSIDE, AdversarialReport, Report
from graphs.interventions.reporting import adversarial_report
from tests.test_cli import run
from tests.test_intervene import SETTINGS, experiment_on, source_of
from tests.tiny import tiny_prompt, toy_dictionary
from viz.page.page import page_data
from viz.text.checked import report_lines

EVERY = CheckSettings(adversarial=4, candidates=10_000, later_candidates=10_000, random_sets=3)
KINDS = ["cross-layer, skip", "per layer, skip, residual to mlp output", "neurons"]


def changed(
    experiment: Experiment, *sets: list[str], factor: float = 0.0
) -> Float[ndarray, " set"]:
    """Change of the targets' value, weighted by the seed, with sets of features scaled."""
    graph = experiment.graph
    made = [
        graphs.intervention(graph, [graphs.Scale(name, factor) for name in names]) for names in sets
    ]
    measured = intervene(experiment, made, Regime.FREE).measured
    targets, seed = graph.target_rows(), graph.seed[graph.target_rows()]
    return measured[:, targets] @ seed / seed.sum()


def half(features: Ablation) -> Bool[ndarray, " feat"]:
    """A circuit of every second feature."""
    return np.arange(len(features)) % 2 == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_step_is_the_feature_that_changes_most_with_those_before(gemma: Subject, kind: str):
    experiment = experiment_on(gemma, source_of(kind))
    features = Ablation(experiment)
    outside = np.flatnonzero(~half(features))
    before: list[str] = []
    for step in greedy_steps(features, outside, EVERY):
        others = [str(features.nodes[number]) for number in outside.tolist()]
        others = [name for name in others if name not in before]
        sizes = np.abs(changed(experiment, *([*before, name] for name in others)))
        assert str(features.nodes[step.feature]) == others[int(sizes.argmax())]
        assert abs(step.change) == pytest.approx(sizes.max(), rel=1e-9)
        assert step.measured == len(others)
        before.append(str(features.nodes[step.feature]))
    assert len(before) == EVERY.adversarial


@pytest.mark.parametrize("kind", KINDS)
def test_the_change_is_that_of_an_intervention_on_the_named_features(gemma: Subject, kind: str):
    experiment = experiment_on(gemma, source_of(kind))
    features = Ablation(experiment)
    circuit = half(features)
    report = adversary(features, circuit, EVERY)
    assert report is not None
    every = [str(node) for node in features.nodes]
    inside = [name for name, kept in zip(every, circuit, strict=True) if kept]
    first = [list(report.nodes[:count]) for count in range(1, EVERY.adversarial + 1)]
    of_all, of_circuit, *changes = changed(experiment, every, inside, *first)
    assert report.changes == pytest.approx(changes, rel=1e-9)
    assert report.share == pytest.approx(changes[-1] / -of_all, rel=1e-9)
    assert report.circuit == pytest.approx(of_circuit / -of_all, rel=1e-9)
    assert not {*report.nodes} & {*inside}
    assert report.outside == len(every) - len(inside)


def test_a_circuit_without_one_feature_that_matters_is_weak_and_the_whole_one_is_not(
    gemma: Subject,
):
    experiment = experiment_on(gemma, toy_dictionary())
    features = Ablation(experiment)
    size = np.abs(changed(experiment, *([str(node)] for node in features.nodes)))
    whole = np.ones(len(features), dtype=bool)
    whole[np.argsort(size)[: len(features) * 2 // 3]] = False  # what matters least is outside
    without = whole.copy()
    without[size.argmax()] = False
    one = replace(EVERY, adversarial=1, random_sets=50)
    found = adversary(features, whole, one), adversary(features, without, one)
    assert found[0] is not None
    assert found[1] is not None
    assert not found[0].is_weak
    assert found[1].is_weak
    assert found[1].nodes == (str(features.nodes[int(size.argmax())]),)


def test_first_order_effects_are_slopes_in_every_architecture(subject: Subject):
    assert_slopes(experiment_on(subject, source_of("cross-layer, skip")))


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_effects_are_slopes_of_every_dictionary(gemma: Subject, kind: str):
    """Also of those that write before a norm, which runs."""
    assert_slopes(experiment_on(gemma, source_of(kind)))


def assert_slopes(experiment: Experiment) -> None:
    """Against small changes of single features; some norms of transformers are in float32."""
    features, step = Ablation(experiment), 1e-3
    found = first_order_effects(experiment)
    some = np.linspace(0, len(features) - 1, 7).astype(int)
    names = [[str(features.nodes[number])] for number in some.tolist()]
    less, more = (changed(experiment, *names, factor=factor) for factor in (1 - step, 1 + step))
    slopes = (less - more) / (2 * step)
    assert found[some] == pytest.approx(slopes, rel=1e-3, abs=1e-3 * np.abs(found).max())
    assert np.abs(found).max() > 1e-3


def test_few_candidates_are_those_of_the_largest_estimate(gemma: Subject):
    features = Ablation(experiment_on(gemma, toy_dictionary()))
    outside = np.flatnonzero(~half(features))
    few = CheckSettings(adversarial=3, candidates=2, later_candidates=1)
    steps = greedy_steps(features, outside, few)
    estimate = np.abs(first_order_effects(features.experiment)[outside])
    assert steps[0].feature in outside[np.argsort(-estimate)[:2]]
    assert [step.measured for step in steps] == [2, 1, 1]


def test_a_pruned_graph_has_the_adversary_of_the_whole(gemma: Subject):
    """Candidates do not rest on a graph, which has lost those outside."""
    whole = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS)
    found = [
        check(prepare(one, gemma, toy_dictionary()), EVERY).adversarial
        for one in (whole, graphs.prune(whole))
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].nodes == found[1].nodes
    assert found[0].share == pytest.approx(found[1].share, rel=1e-9)


def test_with_nothing_outside_or_none_asked_for_there_is_no_such_part(gemma: Subject):
    graph = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS)
    settings = {**graph.provenance.settings, "prune": {}}  # all that is active is the circuit
    pruned = replace(graph, provenance=graph.provenance.model_copy(update={"settings": settings}))
    few = CheckSettings(features=2, strongest=2, random_sets=2, random_orders=1)
    report = check(prepare(pruned, gemma, toy_dictionary()), few)
    assert report.adversarial is None
    assert report.sufficiency is not None
    assert report.sufficiency.share == pytest.approx(1)
    none = check(prepare(graph, gemma, toy_dictionary()), replace(few, adversarial=0))
    assert none.adversarial is None
    assert none.sufficiency is not None


def part(share: float, random: list[float]) -> AdversarialReport:
    """A report of one feature that changes a share of the effect."""
    return adversarial_report(
        nodes=["feature:0/1@2"],
        changes=np.array([-5.0 * share]),
        measured=[64],
        outside=700,
        random=-5.0 * np.array(random),
        circuit=-4.5,
        effect=5.0,
    )


def test_sufficiency_is_weak_if_few_do_what_random_sets_do_not():
    much = 2 * MOST_OUTSIDE
    assert part(much, [0.01] * 20).is_weak
    assert part(-much, [0.01] * 20).is_weak  # what raises the value matters too
    assert not part(0.5 * MOST_OUTSIDE, [0.01] * 20).is_weak
    assert not part(much, [much] * 3 + [0.01] * 17).is_weak  # it does not survive random ones
    assert part(much, [much] + [0.01] * 40).is_weak
    report = Report(generator="", adversarial=part(much, [0.01] * 20))
    assert report.problems == ()  # a remark, no failure
    (said,) = report.remarks
    assert said == (
        "Sufficiency is weak: ablating 1 of 700 features outside the circuit changes 60% of the "
        "effect of all features, the limit is 30%; 95% of random sets change at most 1.0%."
    )
    assert Report(generator="", adversarial=part(0.1, [0.01] * 20)).remarks == ()
    assert Report(generator="").remarks == ()


def test_the_line_gives_the_change_its_null_and_the_verdict():
    (line,) = report_lines(Report(generator="", adversarial=part(0.4, [0.01, 0.03])))
    assert (line.name, line.holds) == ("adversarial", None)
    assert line.text == (
        "ablating 1 of 700 features outside the circuit: −40.0% of the effect "
        "(random −2.0% ± 1.4%) · sufficiency is weak · chosen to change most, up to 64 measured "
        "for each"
    )
    (line,) = report_lines(Report(generator="", adversarial=part(0.01, [0.0, 0.0])))
    assert "weak" not in line.text


def test_the_command_has_the_option_and_show_and_json_the_numbers(tmp_path: Path):
    out, page = tmp_path / "graph.safetensors", tmp_path / "page.html"
    prompt = "The capital of the state containing Dallas is"
    assert run("trace", prompt, "--model", "atlas-small", "--out", out).exit_code == 0
    few = ("--features", "5", "--random-sets", "3", "--adversarial", "2")
    assert "ablating 2 of" in " ".join(run("check", out, *few).stdout.split())
    report = json.loads(run("show", out, "--json").stdout)["report"]["adversarial"]
    assert len(report["nodes"]) == len(report["changes"]) == 2
    assert report["measured"] == [64, 8]
    assert "ablating 2 of" in " ".join(run("show", out).stdout.split())
    assert run("view", out, "--html", page).exit_code == 0
    checks = page_data(page.read_text())["graphs"][0]["checks"]
    assert "adversarial" in {line["name"] for line in checks}
