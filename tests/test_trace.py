from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from circuits.attribution.sweep import build_forward_prefix
from circuits.attribution.trace_settings import Direction, Expansion, TargetSettings, TraceSettings
from circuits.features.neurons import Neurons
from circuits.model.architectures import LAYOUTS, stacked_values
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.pipe import trace
from circuits.recording.record import record
from graphs import AttributionGraph, NodeKind, influence
from tests.conftest import cached_subject, skip_without_neurons
from tests.tiny import tiny_model, tiny_prompt, toy_dictionary
from tests.tolerances import EXACT

LONG = (1, 5, 9, 5, 14, 8, 3, 17, 9, 12)


def traced(subject: Subject, source=None, ids=LONG, **expansion) -> AttributionGraph:
    settings = TraceSettings(expansion=Expansion(**{"kept_share": 1.0, **expansion}))
    return trace(tiny_prompt(ids=ids), subject, source or toy_dictionary(), settings)


def test_checks_hold_on_every_architecture(subject: Subject):
    checks = traced(subject, everything=True).provenance.checks
    assert checks.conservation_max < 1e-12
    assert checks.replay_max_difference < 1e-12
    assert checks.influence_resolved == pytest.approx(1.0, abs=1e-12)
    assert checks.failures == ()
    assert 0 < checks.error_influence_share < 1


def test_skips_are_replayed(subject: Subject):
    source = toy_dictionary(cross_layer=True, skip=True, higher_skips=True)
    checks = traced(subject, source).provenance.checks
    assert checks.replay_max_difference < 1e-12


def test_rows_and_what_was_dropped_sum_to_the_values(subject: Subject):
    graph = traced(subject, everything=True, kept_share=0.8)
    sums = graph.weights.sum(axis=1) + graph.dropped
    np.testing.assert_allclose(sums[graph.expanded], graph.nodes.value[graph.expanded], **EXACT)
    assert graph.weights.nnz < traced(subject, everything=True).weights.nnz


def test_best_first_within_its_budget_is_everything(subject: Subject):
    full, best = traced(subject, everything=True), traced(subject)
    np.testing.assert_allclose(best.weights.toarray(), full.weights.toarray(), **EXACT)


def partly(graph: AttributionGraph, monkeypatch: pytest.MonkeyPatch, **expansion):
    monkeypatch.setattr("circuits.attribution.rows.FIRST_ROUND", 4)
    return traced(cached_subject("gemma-3"), **expansion)


def test_expanded_rows_are_the_same_however_they_were_chosen(monkeypatch: pytest.MonkeyPatch):
    full = traced(cached_subject("gemma-3"), everything=True)
    part = partly(full, monkeypatch, max_features=30)
    rows = np.flatnonzero(part.expanded)
    assert part.provenance.checks.expanded_features == 30
    np.testing.assert_allclose(part.weights[rows].toarray(), full.weights[rows].toarray(), **EXACT)


@pytest.mark.parametrize("max_features", [0, 10, 40])
def test_what_is_unresolved_bounds_every_change_of_influence(
    max_features: int, monkeypatch: pytest.MonkeyPatch
):
    full = traced(cached_subject("gemma-3"), everything=True)
    part = partly(full, monkeypatch, max_features=max_features)
    bound = (1 - part.provenance.checks.influence_resolved) * part.seed.sum()
    change = np.abs(influence(full) - influence(part))
    assert bound > 0
    assert change.max() <= bound * (1 + 1e-9)


def test_expansion_stops_at_the_tolerance(monkeypatch: pytest.MonkeyPatch):
    full = traced(cached_subject("gemma-3"), everything=True)
    part = partly(full, monkeypatch, tolerance=0.4)
    checks = part.provenance.checks
    assert 1 - 0.4 <= checks.influence_resolved < 1
    assert checks.expanded_features < full.provenance.checks.expanded_features


def test_features_are_expanded_best_first(monkeypatch: pytest.MonkeyPatch):
    """The first feature expanded is the one with the most direct effect on the targets."""
    monkeypatch.setattr("circuits.attribution.rows.FIRST_ROUND", 1)
    graph = traced(cached_subject("gemma-3"), max_features=1)
    rows = graph.weights[graph.target_rows()]
    shares = abs(rows).toarray() / abs(rows).sum(axis=1)[:, None]
    reached = graph.seed[graph.target_rows()] @ shares
    features = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    best = features[reached[features].argmax()]
    assert np.flatnonzero(graph.expanded & graph.nodes.is_kind(NodeKind.FEATURE)).tolist() == [best]


def test_neurons_that_are_left_out_go_to_errors(dense_subject: Subject):
    few, many = (traced(dense_subject, Neurons(count)) for count in (20, 10_000))
    for graph in (few, many):
        assert graph.provenance.checks.conservation_max < 1e-12
    errors = [abs(g.weights[:, g.nodes.is_kind(NodeKind.ERROR)]).sum() for g in (few, many)]
    assert errors[0] > 0.1
    assert errors[1] < 1e-9


@pytest.mark.parametrize(
    "targets",
    [
        TargetSettings(tokens=(4,), against=7),
        TargetSettings(tokens=(4,), position=3),
        TargetSettings(directions=(Direction("ramp", torch.arange(16).double()),)),
        TargetSettings(directions=(Direction("ramp", torch.arange(16).double(), 1),)),
    ],
)
@pytest.mark.parametrize("source", [toy_dictionary(), Neurons(40)])
def test_any_target_conserves(subject: Subject, targets: TargetSettings, source):
    skip_without_neurons(subject, source)
    graph = trace(tiny_prompt(), subject, source, TraceSettings(targets=targets))
    assert graph.provenance.checks.conservation_max < 1e-12
    assert graph.weights[graph.target_rows()].nnz > 0


@pytest.mark.parametrize("source", [toy_dictionary(cross_layer=True, skip=True), Neurons(40)])
def test_a_target_at_a_context_only_position_conserves(subject: Subject, source):
    """Positions 0 and 1 are prefix: the target sees tokens and constants, and no skip."""
    skip_without_neurons(subject, source)
    settings = TraceSettings(targets=TargetSettings(position=1, max_logits=2))
    graph = trace(tiny_prompt(n_prefix=2), subject, source, settings)
    checks = graph.provenance.checks
    assert checks.conservation_max < 1e-12
    assert checks.replay_max_difference < 1e-12
    sources = np.unique(graph.weights[graph.target_rows()].indices)
    assert set(graph.nodes.kind[sources]) <= {NodeKind.TOKEN, NodeKind.POSITION, NodeKind.BIAS}


def test_permuting_a_dictionarys_features_permutes_the_graph(gemma: Subject):
    dictionary = toy_dictionary(nonlinearity="relu")
    order = torch.randperm(20, generator=torch.Generator().manual_seed(5))
    layers = tuple(
        replace(
            layer,
            encoder=layer.encoder[order],
            encoder_bias=layer.encoder_bias[order],
            decoders=tuple(rows[order] for rows in layer.decoders),
        )
        for layer in dictionary.layers
    )
    before = traced(gemma, dictionary, everything=True)
    after = traced(gemma, replace(dictionary, layers=layers), everything=True)
    renamed = [before.nodes[i] for i in range(len(before))]
    rows = [
        after.find(replace(node, index=int((order == node.index).nonzero()[0, 0])))
        if node.kind == NodeKind.FEATURE
        else after.find(node)
        for node in renamed
    ]
    np.testing.assert_allclose(
        after.weights.toarray()[np.ix_(rows, rows)], before.weights.toarray(), **EXACT
    )


@pytest.mark.parametrize("block", [16384, 5, 3, 1])
def test_labels_are_the_tokens_that_a_feature_raises(
    gemma: Subject, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("circuits.features.labels.VOCABULARY_BLOCK", block)
    dictionary = toy_dictionary()
    graph = traced(gemma, dictionary)
    frozen = gemma.frozen
    for node, tokens in graph.output_tokens.items():
        layer, index = int(graph.nodes.layer[node]), int(graph.nodes.index[node])
        raised = frozen.unembedding @ (
            frozen.final_norm.gain * dictionary.layers[layer].decoders[0][index]
        )
        best = raised.sort(descending=True).indices[:5].tolist()
        assert tokens == tuple(gemma.spell(token) for token in best)
    assert len(graph.output_tokens) > 10


def test_a_neuron_with_a_negative_activation_is_labelled_by_what_it_then_raises(gemma: Subject):
    graph = traced(gemma, Neurons(60))
    activation = graph.nodes.activation
    negative = [node for node in graph.output_tokens if activation[node] < 0]
    assert negative
    frozen = gemma.frozen
    for node in negative:
        layer, index = int(graph.nodes.layer[node]), int(graph.nodes.index[node])
        down = frozen.modules[layer].mlp.down_proj.weight[:, index]
        gains = frozen.blocks[layer].post_mlp_norm.gain * frozen.final_norm.gain
        best = (frozen.unembedding @ (-down * gains)).sort(descending=True).indices[:5].tolist()
        assert graph.output_tokens[node] == tuple(gemma.spell(token) for token in best)


def test_targets_and_sources_meet_where_it_is_cheapest(
    gemma: Subject, monkeypatch: pytest.MonkeyPatch
):
    splits: list[int] = []

    def push(frozen, attention, sources, split: int):
        splits.append(split)
        return build_forward_prefix(frozen, attention, sources, split)

    monkeypatch.setattr("circuits.attribution.rows.build_forward_prefix", push)
    graphs = []
    for split in (0, 2):
        monkeypatch.setattr(
            "circuits.attribution.cost.Costs.best_split", lambda self, share, f=split: f
        )
        graphs.append(traced(gemma, everything=True))
    assert splits == [0, 2]
    np.testing.assert_allclose(graphs[1].weights.toarray(), graphs[0].weights.toarray(), **EXACT)


def test_a_broken_row_fails_the_check(gemma: Subject, monkeypatch: pytest.MonkeyPatch):
    from circuits.recording.attention import Attention

    whole = Attention.pull_back

    def broken(self: Attention, layer: int, covector: torch.Tensor, pos, crossed: int):
        at_context = whole(self, layer, covector, pos, crossed)
        covector *= 1.01
        return at_context

    monkeypatch.setattr(Attention, "pull_back", broken)
    checks = traced(gemma, everything=True).provenance.checks
    assert checks.conservation_max > 1e-4
    assert "Conservation fails" in checks.failures[0]


def read_as(name: str, dtype: torch.dtype, **layout: object) -> Subject:
    """A tiny model of this type, with what its architecture's layout says in another way."""
    subject, model = cached_subject(name), tiny_model(name).to(dtype)
    architecture = type(model).__name__
    wrong = replace(LAYOUTS[architecture], **layout)  # pyright: ignore[reportArgumentType]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAYOUTS, architecture, wrong)
        return Subject(FrozenModel(model), subject.tokenizer, subject.identity)


def test_bfloat16_is_marked_and_conserves_within_its_limit(dense_subject: Subject):
    subject = read_as(dense_subject.identity.name, torch.bfloat16)
    # Behind one shared norm, or a nonlinearity without a gate, a neuron of layer 0 may be near zero
    # and have its token as its only source: then it is rounding, and is left out.
    most = 400 if subject.identity.name in ("apertus", "cohere", "cohere-2") else 10_000
    graph = traced(subject, Neurons(most), everything=True)
    checks = graph.provenance.checks
    assert graph.provenance.dtype == "bfloat16"
    assert 1e-3 < checks.conservation_max < checks.conservation_limit < 1
    assert checks.recording_max_difference is None
    assert checks.failures == ()


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("gemma-3", {"gain_offset": 0.0}),
        ("llama", {"gain_offset": 1.0}),
        ("gemma-3", {"post_attention_norm": None}),
        ("gpt-neox", {"value_rows": stacked_values}),
        ("gpt-neox", {"parallel": False}),
        ("cohere", {"centred": False}),
        ("cohere", {"logit_multiplier": None}),
        ("granite", {"logit_divisor": None}),
        ("granite", {"residual_multiplier": None}),
        ("olmo-2", {"post_mlp_norm": None}),
        ("phi-3", {"value_rows": lambda fused, n_heads, d_head: fused[-3 * d_head : -d_head]}),
        ("gemma-3-multimodal", {"logit_softcap": "rms_norm_eps"}),
    ],
)
def test_a_model_that_is_read_wrongly_fails_in_bfloat16_too(name: str, layout: dict[str, object]):
    checks = traced(read_as(name, torch.bfloat16, **layout), Neurons(40)).provenance.checks
    assert checks.failures


def test_wrong_norms_fail_in_float64_where_the_recording_has_its_own():
    checks = traced(read_as("gemma-3", torch.float64, gain_offset=0.5)).provenance.checks
    assert checks.conservation_max < 1e-12
    assert checks.replay_max_difference < 1e-12
    (failure,) = checks.failures
    assert "Recording fails: a logit of the recorded run differs" in failure


def test_the_recording_is_compared_with_an_untouched_pass_once_per_model(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
):
    fresh, passes = read_as(subject.identity.name, torch.float64), list[int]()
    model = fresh.frozen.model
    own = model(input_ids=torch.tensor([LONG])).logits[0, -1]
    recorded = record(cached_subject(subject.identity.name).frozen, tiny_prompt(ids=LONG)).logits
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: passes.append(1) or forward(**given))
    for ids in (LONG, LONG[:4]):
        checks = traced(fresh, ids=ids).provenance.checks
        expected = float((recorded - own).abs().max() / own.abs().max())
        assert checks.recording_max_difference == pytest.approx(expected, abs=1e-15)
        assert checks.recording_max_difference < 1e-6 < checks.recording_limit
        assert checks.failures == ()
    assert len(passes) == 3


def test_float32_agrees_with_float64():
    subject = cached_subject("gemma-3")
    single = Subject(
        FrozenModel(tiny_model("gemma-3").float()), subject.tokenizer, subject.identity
    )
    exact = traced(subject, Neurons(10_000), ids=(1, 5, 9, 5), everything=True)
    rounded = traced(single, Neurons(10_000), ids=(1, 5, 9, 5), everything=True)
    rows = [rounded.find(exact.nodes[node]) for node in range(len(exact))]
    weights = csr_array(rounded.weights[rows][:, rows]).toarray()
    assert rounded.weights.dtype == np.float32
    np.testing.assert_allclose(weights, exact.weights.toarray(), rtol=1e-3, atol=1e-5)


def test_every_layer_has_labelled_features():
    """The strongest of each layer too, however little influence they have."""
    subject = cached_subject("gemma-3")
    graph = trace(tiny_prompt(), subject, toy_dictionary(), TraceSettings(labels=2))
    reached = influence(graph)
    rows = np.flatnonzero(graph.nodes.is_kind(NodeKind.FEATURE))
    rows = rows[np.argsort(-reached[rows], kind="stable")]
    expected = set(rows[:2].tolist())
    for layer in range(3):
        expected |= set(rows[graph.nodes.layer[rows] == layer][:2].tolist())
    assert set(graph.output_tokens) == expected
    none = trace(tiny_prompt(), subject, toy_dictionary(), TraceSettings(labels=0))
    assert none.output_tokens == {}
