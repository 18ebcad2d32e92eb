"""How active features and groups are after an intervention, against the model itself."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import graphs
import headwater as hw
from circuits.features.neurons import Neurons
from circuits.model.architectures import part
from circuits.model.subject import Subject
from graphs import NodeKind, Regime, Scale, SetTo, intervention
from graphs.groups.overview import BoxKind, graph_overview
from graphs.interventions.activity import activations_after, is_removed, kept_activity
from tests.test_cli import assert_refused, run
from tests.test_intervene import after, experiment_on, neuron_at, plain_logits, source_of
from tests.tolerances import EXACT

DALLAS = "The capital of the state containing Dallas is"


def test_neurons_after_an_edit_are_what_hooks_on_the_model_see(dense_subject: Subject):
    experiment = experiment_on(dense_subject, Neurons(max_features=60))
    graph, layout = experiment.graph, dense_subject.frozen.layout
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    first = int(rows[0])
    edit = Scale(str(graph.nodes[first]), -1.5)
    outcomes = after(experiment, edit)
    seen: dict[int, torch.Tensor] = {}
    with ExitStack() as stack:
        place = (int(getattr(graph.nodes, name)[first]) for name in ("layer", "pos", "index"))
        stack.enter_context(neuron_at(dense_subject, *place, -1.5))
        for layer, module in enumerate(dense_subject.frozen.modules):
            down = part(part(module, layout.mlp), layout.down)

            def keep(_, args, layer: int = layer) -> None:
                seen[layer] = args[0][0].detach()

            stack.callback(down.register_forward_pre_hook(keep).remove)
        plain_logits(dense_subject, experiment.local.recording.prompt.ids)
    found = activations_after(
        graph, intervention(graph, [edit]), outcomes.measured[0], outcomes.through[0]
    )
    nodes = graph.nodes
    expected = [
        float(seen[int(nodes.layer[row])][int(nodes.pos[row]), int(nodes.index[row])])
        for row in rows.tolist()
    ]
    np.testing.assert_allclose(found[rows], expected, **EXACT)
    assert np.abs(found[rows] - nodes.activation[rows]).max() > 1e-3
    assert np.isnan(np.delete(found, rows)).all()


@pytest.mark.parametrize("kind", ["cross-layer, skip", "per layer, skip, residual to mlp output"])
def test_a_feature_after_edits_below_is_what_the_model_scales(gemma: Subject, kind: str):
    """Twice what a feature is then is the same edit as that number itself."""
    experiment = experiment_on(gemma, source_of(kind))
    graph = experiment.graph
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    off = [
        SetTo(str(graph.nodes[row]), 0.0)
        for row in features[graph.nodes.layer[features] == 0].tolist()
    ]
    outcomes = after(experiment, *off)
    found = activations_after(
        graph, intervention(graph, off), outcomes.measured[0], outcomes.through[0]
    )
    high = features[(graph.nodes.layer[features] == 2) & (graph.nodes.pos[features] == 5)]
    for row in high[:2].tolist():
        name = str(graph.nodes[row])
        scaled, given = (
            after(experiment, *off, edit)
            for edit in (Scale(name, 2.0), SetTo(name, 2 * float(found[row])))
        )
        np.testing.assert_allclose(scaled.after, given.after, **EXACT)


def test_a_group_is_as_active_as_its_members_by_influence():
    graph = hw.trace(DALLAS, model="atlas-small")
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))[:3]
    after_edit = graph.nodes.activation.copy()
    after_edit[rows] *= (1.0, 0.5, 0.0)
    weight = graph.influence[rows]
    expected = (weight[0] + weight[1] / 2) / weight.sum()
    assert kept_activity(graph, rows, after_edit) == pytest.approx(expected)
    after_edit[rows[0]] = np.nan
    assert kept_activity(graph, rows, after_edit) == pytest.approx(weight[1] / 2 / weight[1:].sum())
    assert kept_activity(graph, rows[:1], after_edit) is None


def test_a_group_is_removed_if_all_its_members_are():
    graph = hw.trace(DALLAS, model="atlas-small")
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))[:2]
    first, second = (str(graph.nodes[row]) for row in rows.tolist())
    half = intervention(graph, [Scale(first, 0.0), Scale(second, 0.5)])
    both = intervention(graph, [Scale(first, 0.0), SetTo(second, 0.0)])
    assert not is_removed(graph, rows, half)
    assert is_removed(graph, rows[:1], half)
    assert is_removed(graph, rows, both)
    assert not is_removed(graph, rows[:0], both)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figure") / "dallas.safetensors"
    hw.trace(DALLAS).save(path)
    done = run("group", path, "--at-most", "8", "--save")
    assert done.exit_code == 0, done.output
    return path


def test_groups_within_a_budget_are_kept_beside_the_graph(saved: Path):
    kept = hw.read(saved)
    found = graph_overview(kept)
    names = {found.boxes[n].name for n in found.of_kind(BoxKind.GROUP)}
    assert {group.name for group in kept.annotations.groups} >= names >= {"Texas", "say Austin"}
    text = run("group", saved, "--at-most", "3").stdout
    assert text.count("program") == 3
    assert "Of 370 nodes, those that pruning keeps are grouped: 36." in text


def test_the_figure_of_an_intervention_says_what_is_left_of_each_box(saved: Path, tmp_path: Path):
    figure = tmp_path / "texas.svg"
    asked = ("--scale", "group:Texas=0", "--regime", "free", "--figure", figure)
    done = run("intervene", saved, *asked)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"figure: {figure}"
    svg = figure.read_text(encoding="utf-8")
    shown = [node.text for node in ElementTree.fromstring(svg).iter() if node.text]
    (target, *_) = hw.intervene(
        hw.read(saved), hw.Scale("group:Texas", 0.0), regime=Regime.FREE
    ).targets
    share = round(100 * (target.value + target.measured) / target.value)
    assert f"100% → {share}%" in shown
    assert shown.count("100% → 0%") == 1  # Texas
    behind = re.search(r"say Austin\s+100% → (\d+)%", "\n".join(shown))
    assert behind is not None
    assert int(behind[1]) < 20
    assert svg.count("#aab0ba") == 2  # the two lines through Texas
    assert "group:Texas × 0, in % of" in " ".join(" ".join(shown).split())  # over any lines
    assert f'width="{85 / 25.4 * 72:.1f}' in svg  # a column, in points
    assert run("intervene", saved, *asked, "--width", "page").exit_code == 0
    assert f'width="{174 / 25.4 * 72:.1f}' in figure.read_text(encoding="utf-8")


def test_a_figure_is_of_a_single_intervention(saved: Path, tmp_path: Path):
    edits = ("--scale", "feature:5/331@8=0", "--scale", "feature:2/626@8=0", "--each")
    result = run("intervene", saved, *edits, "--figure", tmp_path / "a.svg")
    assert_refused(result, "--figure needs a single intervention: leave out --each.")
    result = run("intervene", saved, *edits[:2], "--figure", tmp_path / "a.gif")
    assert_refused(result, "has none of the suffixes of figures")
    result = run("intervene", saved, *edits[:2], "--width", "page")
    assert_refused(result, "--width is the width of a figure: give --figure too.")
    assert list(tmp_path.iterdir()) == []
    assert graphs.annotations_path(saved).exists()
