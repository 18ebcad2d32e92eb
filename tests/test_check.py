"""Report cards: what is measured in the model, and what fails is told plainly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

import graphs
from circuits.evaluation.ablation import Ablation
from circuits.evaluation.check import check
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.evaluation.replacement import replacement_report
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.subject import Subject
from circuits.pipe import trace
from graphs import NodeKind, Regime
from graphs.core.graph import row_sizes, row_sums
from graphs.core.report import (
    CurveReport,
    EffectReport,
    Receivers,
    ReplacementReport,
    Report,
    RunningReport,
    SetReport,
    StrongestReport,
)
from graphs.interventions.permuted import with_permuted_edges
from graphs.interventions.reporting import areas, effect_report, set_report
from tests.browser import needs_chromium, opened
from tests.test_cli import assert_refused, run
from tests.test_intervene import SETTINGS, experiment_on, source_of
from tests.test_viewer import settle, small
from tests.tiny import tiny_prompt, toy_dictionary
from viz.page.page import page_data, write_page

FEW = CheckSettings(features=8, strongest=5, random_sets=3, random_orders=2)


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_a_report_is_what_its_interventions_measure(gemma: Subject, kind: str):
    experiment = experiment_on(gemma, source_of(kind))
    graph, report = experiment.graph, check(experiment, FEW)
    targets, seed = graph.target_rows(), graph.seed[graph.target_rows()]
    circuit = graphs.prune(graph).nodes
    inside = {str(node) for node in circuit if node.kind == NodeKind.FEATURE}

    def value_without(names: set[str]) -> float:
        edits = [graphs.SetTo(name, 0.0) for name in sorted(names)]
        one = intervene(experiment, [graphs.intervention(graph, edits)], Regime.FREE)
        return float(one.measured[0, targets] @ seed / seed.sum())

    everything = {str(node) for node in graph.nodes if node.kind == NodeKind.FEATURE}
    nothing = value_without(everything)
    if nothing >= 0:
        assert report.necessity is report.sufficiency is report.curve is None
        pytest.skip("all features together do not raise these targets")
    assert report.sufficiency is not None
    assert report.necessity is not None
    assert report.sufficiency.features == len(inside)
    assert report.sufficiency.share == pytest.approx(
        1 - value_without(everything - inside) / nothing, rel=1e-9
    )
    assert report.necessity.share == pytest.approx(value_without(inside) / nothing, rel=1e-9)
    assert report.strongest is not None
    features = Ablation(experiment)
    few = {
        str(features.nodes[number]) for number in features.by_total_effect[: FEW.strongest].tolist()
    }
    assert report.strongest.drop == pytest.approx(-value_without(few), rel=1e-9)
    assert report.strongest.value == pytest.approx(graph.nodes.value[targets] @ seed / seed.sum())
    assert report.curve is not None
    assert report.curve.faithfulness[-1] == pytest.approx(1, abs=1e-9)


def test_the_probability_that_is_left_is_that_of_the_top_target(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    report, graph = check(experiment, FEW), experiment.graph
    features = Ablation(experiment)
    edits = [
        graphs.SetTo(str(features.nodes[n]), 0.0) for n in features.by_total_effect[: FEW.strongest]
    ]
    outcomes = intervene(experiment, [graphs.intervention(graph, edits)], Regime.FREE)
    top = graph.provenance.targets[0].token_id
    assert report.strongest is not None
    assert report.strongest.probability is not None
    before, left, _ = report.strongest.probability
    assert before == pytest.approx(graph.provenance.targets[0].probability)
    assert left == pytest.approx(float(outcomes.after[0].softmax(-1)[top]))


def test_the_strongest_are_those_whose_ablation_is_predicted_to_take_away_most(gemma: Subject):
    features = Ablation(experiment_on(gemma, toy_dictionary()))
    graph = features.experiment.graph
    made = [graphs.Intervention("", (change,)) for change in features.changes]
    holding = replace(graph, responses=None)  # total effects are with norms held
    predicted = graphs.predict(holding, made, [-1] * len(made))
    targets = graph.target_rows()
    change = predicted[:, targets] @ graph.seed[targets]
    assert np.all(np.diff(change[features.by_total_effect]) >= -1e-9)


def test_frozen_effects_of_a_report_have_no_error(gemma: Subject):
    report = check(experiment_on(gemma, toy_dictionary()), FEW)
    frozen = {one.on: one for one in report.effects if one.regime == Regime.FROZEN}
    assert set(frozen) == {"targets", "features"}
    for one in frozen.values():
        assert one.error == pytest.approx(0, abs=1e-9)
        assert one.same_sign == 1.0
        assert one.effects > FEW.features
    assert {one.regime for one in report.effects} == set(Regime)


def test_what_a_pruned_graph_has_dropped_is_allowed_for(gemma: Subject):
    whole = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS)
    part = graphs.prune(whole, graphs.PruneSettings(edge_threshold=0.5))
    report = check(prepare(part, gemma, toy_dictionary()), FEW)
    frozen = {one.on: one for one in report.effects if one.regime == Regime.FROZEN}
    lost, kept = np.abs(part.dropped_absolute), abs(part.weights).sum(axis=1)
    features = part.nodes.is_kind(NodeKind.FEATURE)
    for on, rows in (("targets", part.target_rows()), ("features", features)):
        share = lost[rows].sum() / (lost[rows].sum() + kept[rows].sum())
        assert frozen[on].dropped == pytest.approx(share)
        assert share > 0.05


def test_random_sets_have_as_many_features_of_every_layer(gemma: Subject):
    features = Ablation(experiment_on(gemma, toy_dictionary()))
    chosen = np.zeros(len(features), dtype=bool)
    chosen[[0, 1, len(features) - 1]] = True
    alike = features.random_set(chosen, np.random.default_rng(0))
    for layer in range(3):
        here = features.layer == layer
        assert alike[here].sum() == chosen[here].sum()
    assert not np.array_equal(alike, chosen)


def test_a_pruned_graph_is_tested_against_all_that_is_active(gemma: Subject):
    graph = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS)
    whole = prepare(graph, gemma, toy_dictionary())
    part = prepare(graphs.prune(graph), gemma, toy_dictionary())
    assert len(Ablation(part)) == len(Ablation(whole)) > len(part.graph)
    one, other = check(whole, FEW), check(part, FEW)
    assert one.necessity is not None
    assert other.necessity is not None
    assert other.necessity.share == pytest.approx(one.necessity.share, rel=1e-9)


def test_a_part_has_no_report_of_the_whole(gemma: Subject):
    graph = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS).with_report(GOOD)
    assert graphs.prune(graph).provenance.report is None


def test_few_features_have_no_others_to_be_compared_with(gemma: Subject):
    experiment = experiment_on(gemma, toy_dictionary())
    settings = CheckSettings(features=2, strongest=1000, random_sets=2, random_orders=1)
    assert check(experiment, settings).strongest is None


def test_one_layer_replaced_is_its_errors_ablated(gemma: Subject):
    """Below the layer nothing changes, so what is left out there is the recorded error."""
    source = toy_dictionary(cross_layer=True, skip=True)
    experiment = experiment_on(gemma, source)
    report = replacement_report(gemma.frozen, experiment.local.recording, source)
    own = experiment.local.recording.logits.log_softmax(-1)
    for layer in range(3):
        names = [
            str(node)
            for node in experiment.graph.nodes
            if node.kind == NodeKind.ERROR and node.layer == layer
        ]
        edits = [graphs.SetTo(name, 0.0) for name in names]
        made = [graphs.intervention(experiment.graph, edits)]
        other = intervene(experiment, made, Regime.FREE).after[0].log_softmax(-1)
        divergence = float((own.exp() * (own - other)).sum())
        # transformers computes norms in float32 where nothing asks for more.
        assert report.per_layer[layer] == pytest.approx(divergence, rel=1e-4)


def test_effects_are_compared_in_rank_sign_and_size():
    told = effect_report(
        Regime.FREE, "targets", np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, -6.0])
    )
    assert told.rank_correlation == pytest.approx(-0.5)
    assert told.same_sign == pytest.approx(2 / 3)
    assert told.error == pytest.approx((1 + 2 + 9) / 12)
    none = effect_report(Regime.FREE, "features", np.zeros(3), np.zeros(3))
    assert (none.rank_correlation, none.same_sign, none.error) == (None, None, None)


def test_sets_are_beside_chance_and_curves_have_areas():
    found = set_report(5, 0.6, np.array([0.1, 0.6, 0.9, 0.2]))
    assert (found.random_mean, found.null_probability) == (pytest.approx(0.45), 0.5)
    assert areas(np.array([0.25, 0.5, 1.0]), np.array([0.5, 1.0, 1.0])) == (
        pytest.approx(0.0625 + 0.1875 + 0.5),
        pytest.approx(0.1875 + 0.0625),
    )


def effects(regime: Regime, on: Receivers, rank: float, sign: float, error: float):
    return EffectReport(
        regime=regime,
        on=on,
        effects=9,
        dropped=0.001,
        rank_correlation=rank,
        same_sign=sign,
        error=error,
    )


GOOD = Report(
    generator="headwater",
    effects=(
        effects(Regime.FROZEN, "targets", 1.0, 1.0, 1e-6),
        effects(Regime.FROZEN, "features", 1.0, 1.0, 1e-6),
        effects(Regime.CONSTRAINED, "targets", 0.8, 0.9, 0.3),
        effects(Regime.CONSTRAINED, "features", 0.8, 0.9, 0.3),
        effects(Regime.FREE, "targets", 0.1, 0.2, 3.0),
    ),
    necessity=SetReport(
        features=3, share=0.9, random_mean=0.1, random_sd=0.1, null_probability=0.0
    ),
    sufficiency=SetReport(
        features=3, share=0.9, random_mean=0.1, random_sd=0.1, null_probability=0.0
    ),
    strongest=StrongestReport(
        features=20,
        value=9.0,
        drop=3.0,
        random_drop=0.1,
        random_sd=0.2,
        null_probability=0.0,
        probability=(0.5, 0.1, 0.4),
    ),
    curve=CurveReport(
        shares=(1.0,), faithfulness=(1.0,), cpr=0.5, cmd=0.5, random_cpr=0.2, random_cmd=0.8
    ),
    replacement=ReplacementReport(same_top=True, divergence=0.1, per_layer=(0.0,)),
)


def bad(name: str, **changes: object) -> Report:
    part = getattr(GOOD, name)
    if isinstance(part, tuple):
        which = changes.pop("regime"), changes.pop("on")
        parts = tuple(
            one.model_copy(update=changes) if (one.regime, one.on) == which else one for one in part
        )
        return GOOD.model_copy(update={name: parts})
    return GOOD.model_copy(update={name: part.model_copy(update=changes)})


def test_a_graph_that_holds_has_no_failures():
    assert GOOD.failures == ()


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (
            bad("effects", regime=Regime.FROZEN, on="features", error=0.01),
            "Frozen effects on features fail: with everything frozen, predicted and measured "
            "effects differ by 1.0e-02 of their size, the limit is 2.0e-03",
        ),
        (
            bad("effects", regime=Regime.CONSTRAINED, on="targets", rank_correlation=0.3),
            "Constrained effects on targets fail: predicted and measured effects have a rank "
            "correlation of 0.30, the limit is 0.35.",
        ),
        (
            bad(
                "effects",
                regime=Regime.CONSTRAINED,
                on="features",
                same_sign=0.6,
                null_same_sign=0.58,
            ),
            "Constrained effects on features fail: 60% have the predicted sign, the limit is 63%",
        ),
        (
            bad("necessity", null_probability=0.2),
            "Necessity fails: ablating the pruned circuit has 90%",
        ),
        (
            bad("sufficiency", null_probability=0.2),
            "Sufficiency fails: keeping the pruned circuit alone",
        ),
        (bad("strongest", null_probability=0.5), "Strongest fails: ablating the 20 features"),
        (bad("replacement", same_top=False), "token changes; the divergence is 0.10 nats"),
    ],
)
def test_a_graph_that_fails_is_told_so_with_the_check_and_by_how_much(
    report: Report, sentence: str
):
    (said,) = report.failures
    assert sentence in said


def test_the_command_keeps_the_report_and_show_and_the_page_tell_it(tmp_path: Path):
    out, page = tmp_path / "graph.safetensors", tmp_path / "page.html"
    prompt = "The capital of the state containing Dallas is"
    assert run("trace", prompt, "--model", "atlas-small", "--out", out).exit_code == 0
    few = ("--features", "20", "--random-sets", "4")
    result = run("check", out, *few)
    kept = graphs.read_graph(out).provenance.report
    assert kept is not None
    assert result.exit_code == (1 if kept.failures else 0), result.output
    for failure in kept.failures:
        assert failure in result.stdout
    shown = run("show", out).stdout
    for words in (
        "in the model",
        "effects on features, frozen",
        "necessity",
        "strongest",
        "CPR",
        "replacement",
    ):
        assert words in shown
    assert json.loads(run("show", out, "--json").stdout)["report"]["generator"] == kept.generator
    assert run("view", out, "--html", page).exit_code == 0
    checks = page_data(page.read_text())["graphs"][0]["checks"]
    assert "necessity" in {line["name"] for line in checks}
    told = json.loads(run("check", out, *few, "--json").stdout)
    assert told["report"] == kept.model_dump(mode="json")


@needs_chromium
def test_a_verdict_on_the_page_is_one_word_in_one_line(browser: Browser, tmp_path: Path):
    report = bad("strongest", null_probability=0.5)
    write_page(small().with_report(report), tmp_path / "page.html")
    with opened(browser, tmp_path / "page.html") as found:
        page = found.page
        page.wait_for_selector("html[data-ready]")
        page.get_by_role("tab", name="Checks").click()
        settle(page)
        lines = """cells => cells.map((cell) => {
            const range = document.createRange();
            range.selectNodeContents(cell);
            return [cell.innerText, range.getClientRects().length];
        })"""
        verdicts = page.locator("td.holds, td.fails").evaluate_all(lines)
        assert ["fails", 1] in verdicts
        assert {count for word, count in verdicts if word} == {1}
        assert "ablating the 20 strongest: −3.00 of 9.00" in page.inner_text(
            "section[aria-label='about this graph']"
        )


def test_a_graph_of_something_else_is_refused(tmp_path: Path):
    out = tmp_path / "graph.safetensors"
    asked = ("trace", "The capital of France is", "--model", "atlas-small", "--out", out)
    assert run(*asked).exit_code == 0
    before = out.read_bytes()
    assert_refused(run("check", out, "--model", "atlas-large"), "give the model that was traced")
    assert_refused(run("check", tmp_path / "none.safetensors"), "none.safetensors")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("running", "sentence"),
    [
        (
            (True, 0, 0),
            "the final norm runs; norms inside the model, attention patterns and errors are held",
        ),
        (
            (True, 12, 0),
            "the final norm and 12 norms inside the model run; attention patterns and errors are "
            "held",
        ),
        (
            (False, 1, 1000),
            "1 norms inside the model and 1,000 gates of neurons run; attention patterns and "
            "errors are held",
        ),
    ],
)
def test_what_predictions_let_run_is_one_sentence(running: tuple[bool, int, int], sentence: str):
    final_norm, norms, gates = running
    assert RunningReport(final_norm=final_norm, norms=norms, gates=gates).sentence == sentence


def effects(rank: float, sign: float, null: tuple[float, float] | None) -> EffectReport:
    return EffectReport(
        regime=Regime.CONSTRAINED,
        on="targets",
        effects=100,
        dropped=0.0,
        rank_correlation=rank,
        same_sign=sign,
        error=0.5,
        null_rank_correlation=None if null is None else null[0],
        null_same_sign=None if null is None else null[1],
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (effects(0.6, 0.7, (0.0, 0.5)), None),
        (effects(0.36, 0.7, None), None),  # of an older version: no null is known
        (effects(0.34, 0.7, None), "rank correlation of 0.34, the limit is 0.35."),
        (
            effects(0.44, 0.7, (0.15, 0.5)),
            "rank correlation of 0.44, the limit is 0.45 (with edges permuted 0.15).",
        ),
        (
            effects(0.6, 0.54, (0.0, 0.5)),
            "54% have the predicted sign, the limit is 55% (with edges permuted 0.50).",
        ),
    ],
)
def test_predicted_effects_are_to_be_better_than_those_of_permuted_edges(
    found: EffectReport, sentence: str | None
):
    problems = Report(generator="", effects=(found,)).problems
    if sentence is None:
        assert problems == ()
    else:
        ((name, problem),) = problems
        assert name == "effects.constrained.targets"
        assert problem.startswith("Constrained effects on targets fail: ")
        assert problem.endswith(sentence)


def test_a_graph_with_permuted_edges_keeps_sums_and_fails(gemma: Subject):
    graph = trace(tiny_prompt(), gemma, toy_dictionary(), SETTINGS)
    wrong = with_permuted_edges(graph, np.random.default_rng(1))
    np.testing.assert_allclose(row_sums(wrong.weights), row_sums(graph.weights), rtol=1e-9)
    np.testing.assert_allclose(row_sizes(wrong.weights), row_sizes(graph.weights), rtol=1e-9)
    assert (wrong.weights != graph.weights).nnz > 0.5 * graph.weights.nnz
    report = check(prepare(wrong, gemma, toy_dictionary()), FEW)
    assert {"rows", "effects.frozen.targets"} <= {name for name, _ in report.problems}


def test_sets_are_predicted_too(gemma: Subject):
    """As the graph predicts the same ablations one by one."""
    experiment = experiment_on(gemma, toy_dictionary())
    report = check(experiment, FEW)
    assert report.curve is not None
    assert report.curve.predicted is not None
    assert report.curve.predicted[-1] == pytest.approx(1.0)  # everything is kept
    features = Ablation(experiment)
    kept = features.inside(graphs.prune(experiment.graph))
    nothing = np.zeros(len(features), dtype=bool)
    outcomes = features.ablated([~nothing, ~kept, kept])
    every, outside, inside = features.predicted_change(outcomes)
    assert report.sufficiency is not None
    assert report.necessity is not None
    assert report.sufficiency.predicted == pytest.approx(1 - outside / every)
    assert report.necessity.predicted == pytest.approx(inside / every)
