"""On a real GPU: the numbers of the CPU.  Where there is none, tests/test_card.py stands in."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits.atlas.shipped import atlas_transcoders
from circuits.attribution.trace_settings import Expansion, TraceSettings
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.transcoder_set import TranscoderSet
from circuits.interventions.experiment import prepare
from circuits.interventions.intervene import generate, intervene
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import read_prompt
from circuits.model.subject import Subject, read_subject
from circuits.pipe import trace
from circuits.recording.precision import Precision
from graphs import Regime
from tests.conftest import cached_subject
from tests.test_adjoint import DICTIONARIES
from tests.test_card import SOURCES, WAITS, distance
from tests.test_card_commands import EXACT, some_interventions
from tests.test_cli import run
from tests.test_intervene import SETTINGS, source_of
from tests.tiny import ARCHITECTURES, tiny_prompt, tiny_subject

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]
CUDA = torch.device("cuda")


def on_cuda(name: str) -> Subject:
    subject = tiny_subject(name)
    model = subject.frozen.model.to(CUDA)  # pyright: ignore[reportArgumentType]
    return Subject(FrozenModel(model), subject.tokenizer, subject.identity)


def placed(source: FeatureSource) -> FeatureSource:
    return source.on(CUDA) if isinstance(source, TranscoderSet) else source


def same(name: str, source: FeatureSource, there: FeatureSource) -> None:
    settings = TraceSettings(expansion=Expansion(max_features=20), labels=8)
    own = trace(tiny_prompt(), cached_subject(name), source, settings)
    found = trace(tiny_prompt(), on_cuda(name), there, settings)
    assert distance(found, own) < 1e-10
    assert np.array_equal(found.expanded, own.expanded)
    assert found.output_tokens == own.output_tokens


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_has_the_numbers_of_the_cpu(name: str):
    dictionary = DICTIONARIES["cross-layer, skips to every layer"]
    assert dictionary is not None
    same(name, dictionary, dictionary.on(CUDA))


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_has_the_numbers_of_the_cpu(source: str):
    same("gemma-3", SOURCES[source], placed(SOURCES[source]))


def test_a_dictionary_may_stay_on_the_host():
    same("gemma-3", SOURCES["per layer"], SOURCES["per layer"])


@pytest.mark.parametrize(
    ("precision", "limit"),
    [(Precision.IEEE, 1e-5), (Precision.SPLIT, 1e-5), (Precision.TF32, 0.02)],
)
def test_products_conserve_as_their_precision_says(precision: Precision, limit: float):
    subject = read_subject("atlas-large", device="cuda")
    source = read_transcoders(str(atlas_transcoders("atlas-large"))).on(CUDA)
    prompt = read_prompt("The capital of the state containing Dallas is", subject.tokenizer)
    found = trace(prompt, subject, source, TraceSettings(precision=precision))
    assert found.provenance.checks.conservation_max < limit
    assert not found.provenance.failures


@pytest.mark.parametrize("kind", ["cross-layer, skip", "neurons"])
def test_interventions_have_the_effects_of_the_cpu(kind: str):
    source = source_of(kind)
    graph = trace(tiny_prompt(), cached_subject("gemma-3"), source, SETTINGS)
    own = prepare(graph, cached_subject("gemma-3"), source)
    held = prepare(graph, on_cuda("gemma-3"), placed(source))
    made = some_interventions(own)
    for regime in Regime:
        expected, found = (intervene(one, made, regime) for one in (own, held))
        np.testing.assert_allclose(found.measured, expected.measured, **EXACT)
        np.testing.assert_allclose(found.after.cpu(), expected.after, **EXACT)
    assert generate(held, made[0], 3) == generate(own, made[0], 3)


def test_the_host_waits_as_seldom_as_for_a_made_up_card():
    subject, source = on_cuda("gemma-3"), placed(SOURCES["per layer"])
    trace(tiny_prompt(), subject, source)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            trace(tiny_prompt(), subject, source)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(found) <= 2 * WAITS  # those of transformers' forward pass included


def test_memory_that_runs_out_is_refused_or_halved(tmp_path: Path):
    """A limit that holds the model and little more."""
    out = tmp_path / "graph.safetensors"
    command = ("trace", "The capital of the state containing Dallas is", "--device", "cuda")
    result = run(*command, "--memory", 0.0, "--out", out)
    assert result.exit_code == 2
    assert "are free: " in result.stderr
    assert run(*command, "--memory", 2, "--out", out).exit_code == 0
