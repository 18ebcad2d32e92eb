"""Edits of attention in the model: heads, entries, and queries, keys and values alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import pytest
import torch

from circuits.attention.entries import attention_entries
from circuits.attention.head_paths import head_paths
from circuits.interventions.experiment import Experiment
from circuits.interventions.intervene import generate, intervene
from circuits.model.architectures import part
from circuits.model.subject import Subject
from circuits.recording.record import record
from graphs import (
    Add,
    AttributionGraph,
    EditError,
    NodeKind,
    Regime,
    Scale,
    Steer,
    Swap,
    intervention,
)
from graphs.interventions.heads import EVERYTHING, HeadChoice, chosen_heads
from tests.test_heads import SOURCES, experiment_with, whole_experiment
from tests.tiny import tiny_prompt
from tests.tolerances import EXACT

LAYER, HEADS = 1, range(4)
OTHER = (1, 6, 2, 5, 11, 8)


def change(
    experiment: Experiment,
    *edits,
    regime: Regime = Regime.FROZEN,
    heads: HeadChoice = EVERYTHING,
) -> np.ndarray:
    """Measured changes of features and targets."""
    made = intervention(experiment.graph, edits)
    told = experiment.graph.nodes.is_kind(NodeKind.FEATURE, NodeKind.LOGIT)
    return intervene(experiment, [made], regime, heads=heads).measured[0, told]


def low_feature(experiment: Experiment) -> int:
    """A feature of layer 0 in the middle of the prompt."""
    nodes = experiment.graph.nodes
    here = nodes.is_kind(NodeKind.FEATURE) & (nodes.layer == 0) & (nodes.pos == 3)
    return int(np.flatnonzero(here)[0])


@cache
def other_graph(subject: Subject) -> AttributionGraph:
    return experiment_with(subject, SOURCES["per layer"](), ids=OTHER).graph


def test_a_cut_entry_takes_away_what_flows_through_it(subject: Subject):
    experiment = whole_experiment(subject, "per layer")
    graph, target = experiment.graph, int(experiment.graph.target_rows()[0])
    found = attention_entries(experiment, target, most=10**6)
    for layer in range(3):
        here = np.flatnonzero(found.layer == layer)[[0, 5]]
        for entry in here.tolist():
            head, query, key = (int(c[entry]) for c in (found.head, found.query, found.key))
            edit = Scale(f"head:{layer}.{head}@{query}<{key}", 0.25)
            outcomes = intervene(experiment, [intervention(graph, [edit])], Regime.FROZEN)
            taken = -0.75 * found.flow[entry]
            np.testing.assert_allclose(outcomes.measured[0, target], taken, rtol=1e-7, atol=1e-11)
            assert np.isnan(outcomes.predicted).all()
        whole = float(found.flow[(found.layer == layer) & (found.head == 2)].sum())
        outcomes = intervene(
            experiment, [intervention(graph, [Scale(f"head:{layer}.2", 0.0)])], Regime.FROZEN
        )
        np.testing.assert_allclose(outcomes.measured[0, target], -whole, rtol=1e-7, atol=1e-11)


@contextmanager
def heads_changed(
    subject: Subject, layer: int, do: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """The plain model with what a layer's heads mix changed, as anyone would do it by hand."""
    layout = subject.frozen.layout
    output = part(subject.frozen.blocks[layer].modules.attention, layout.output)
    handle = output.register_forward_pre_hook(
        lambda _, args: (do(args[0].clone().unflatten(-1, (4, -1))).flatten(-2),)
    )
    try:
        yield
    finally:
        handle.remove()


def test_a_free_head_is_what_a_hook_on_the_model_gives(subject: Subject):
    """Scaled at two queries, and patched from another prompt."""
    experiment = whole_experiment(subject, "per layer")
    kept: list[torch.Tensor] = []

    def keep(mixed: torch.Tensor) -> torch.Tensor:
        kept.append(mixed)
        return mixed

    def change_heads(mixed: torch.Tensor) -> torch.Tensor:
        mixed[:, 3:, 1] *= -0.5
        mixed[:, :, 2] = kept[0][:, :, 2]
        return mixed

    with heads_changed(subject, LAYER, keep):
        record(subject.frozen, tiny_prompt(OTHER))
    with heads_changed(subject, LAYER, change_heads):
        logits = record(subject.frozen, tiny_prompt()).logits
    other = other_graph(subject)
    edits = [Scale(f"head:{LAYER}.1@3+", -0.5), Swap(f"head:{LAYER}.2", f"head:{LAYER}.2", other)]
    outcomes = intervene(experiment, [intervention(experiment.graph, edits)], Regime.FREE)
    np.testing.assert_allclose(outcomes.after[0], logits, **EXACT)


def test_values_alone_carry_what_paths_of_heads_say(subject: Subject):
    experiment = whole_experiment(subject, "per layer")
    source, target = low_feature(experiment), int(experiment.graph.target_rows()[0])
    through = head_paths(experiment, source, target).through
    edit = Scale(str(experiment.graph.nodes[source]), -1.0)
    made = [intervention(experiment.graph, [edit])]
    for layer, head in ((1, 0), (1, 3), (2, 2)):
        chosen = chosen_heads(experiment.graph, values=[f"{layer}.{head}"])
        found = intervene(experiment, made, Regime.FROZEN, heads=chosen).measured[0, target]
        np.testing.assert_allclose(found, -2 * through[layer, head], rtol=1e-7, atol=1e-11)


def test_queries_keys_and_values_together_are_all_that_a_layer_reads(subject: Subject):
    """What goes past the layer is the same whether its patterns run or not."""
    experiment = whole_experiment(subject, "per layer")
    edit = Scale(str(experiment.graph.nodes[low_feature(experiment)]), -1.0)
    all_heads = frozenset((LAYER, head) for head in HEADS)
    runs = change(experiment, edit, heads=HeadChoice(running=all_heads))
    given = change(experiment, edit, heads=HeadChoice(all_heads, all_heads, all_heads))
    held = change(experiment, edit)
    linear = change(experiment, edit, heads=HeadChoice(values=all_heads))
    np.testing.assert_allclose(runs - given, held - linear, **EXACT)
    assert np.abs(runs - held).max() > 1e-5


@pytest.mark.parametrize("side", ["queries", "keys"])
def test_the_pattern_of_one_head_changes_alone(subject: Subject, side: str):
    """Also where several heads share a key: what each head's change does adds up."""
    experiment = whole_experiment(subject, "per layer")
    last = len(experiment.graph.provenance.tokens) - 1
    vector = np.random.default_rng(3).normal(size=subject.frozen.d_model)
    edit = Steer(0, last if side == "queries" else 3, vector)

    def of(*heads: int) -> np.ndarray:
        chosen = HeadChoice(**{side: frozenset((LAYER, head) for head in heads)})
        return change(experiment, edit, heads=chosen)

    np.testing.assert_allclose(of(0, 1, 2), of(0) + of(1) + of(2), **EXACT)
    assert np.abs(of(0)).max() > 1e-6
    assert np.abs(of(0) - of(1)).max() > 1e-6


def test_with_all_patterns_running_and_nothing_held_the_model_is_free(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    edit = Scale("head:0.1", -1.0)  # below it there is no block to hold
    running = HeadChoice(running=frozenset((n, head) for n in range(3) for head in HEADS))
    found = change(experiment, edit, regime=Regime.CONSTRAINED, heads=running)
    free = change(experiment, edit, regime=Regime.FREE)
    np.testing.assert_allclose(found, free, **EXACT)
    held = change(experiment, edit, regime=Regime.CONSTRAINED)
    assert np.abs(found - held).max() > 1e-5


def test_heads_of_many_interventions_at_once_are_what_each_is_alone(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    experiment = whole_experiment(gemma, "per layer")
    graph = experiment.graph
    other = other_graph(gemma)
    edits = [
        Scale("head:1.0", 0.5),
        Swap("head:1.1@4", "head:1.1@3", other),
        Scale("head:1.0@5<4", -1.0),
        Scale(str(graph.nodes[low_feature(experiment)]), 2.0),
    ]
    made = [intervention(graph, [edit]) for edit in edits]
    for heads in (EVERYTHING, chosen_heads(graph, keys=["2.0,2.3"], running=["1.2"])):
        together = intervene(experiment, made, Regime.CONSTRAINED, through=0, heads=heads)
        with monkeypatch.context() as patch:
            patch.setattr("circuits.interventions.batches.POSITIONS", 1)
            alone = intervene(experiment, made, Regime.CONSTRAINED, through=0, heads=heads)
        np.testing.assert_allclose(together.after, alone.after, **EXACT)
        np.testing.assert_allclose(together.measured, alone.measured, **EXACT)
        assert np.abs(together.measured[:, graph.target_rows()]).min() > 1e-9


def test_a_head_is_ablated_at_new_tokens_too(gemma: Subject):
    experiment = whole_experiment(gemma, "per layer")
    everywhere = generate(experiment, intervention(experiment.graph, [Scale("head:2.1", -9.0)]), 4)
    ids = tiny_prompt().ids
    with heads_changed(gemma, 2, lambda mixed: mixed * torch.tensor([1, -9, 1, 1])[:, None]):
        for expected in everywhere.after_ids:
            token = int(record(gemma.frozen, tiny_prompt(ids)).logits.argmax())
            assert token == expected
            ids = (*ids, token)
    assert everywhere.after_ids != everywhere.before_ids


@pytest.mark.parametrize(
    ("edit", "heads", "regime", "sentence"),
    [
        (Scale("head:1.4", 0.0), {}, "free", "no head 1.4: layer 1 has heads 0 to 3"),
        (Add("feature:0/1@2", 0.0), {"keys": ["0.9"]}, "free", "no head 0.9: layer 0"),
        (Add("feature:0/1@2", 0.0), {"running": ["2.99"]}, "frozen", "no head 2.99"),
        (Add("feature:0/1@2", 0.0), {"running": ["2.0"]}, "free", "needs a regime that holds"),
    ],
)
def test_heads_that_the_model_does_not_have_are_refused(
    gemma: Subject, edit, heads, regime, sentence: str
):
    experiment = whole_experiment(gemma, "per layer")
    chosen = chosen_heads(experiment.graph, **heads)
    made = [intervention(experiment.graph, [edit])]
    with pytest.raises(EditError, match=sentence):
        intervene(experiment, made, Regime(regime), heads=chosen)
