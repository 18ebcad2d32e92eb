"""Training on a made-up card: the numbers of the CPU, and steps that wait for nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from card import CARD, Watch, card, on_card
from torch import Tensor

from circuits.corpora.corpus import sampled_corpus
from circuits.features.transcoder import JumpReLU, Transcoder
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.training.activations import Activations, Stream
from circuits.training.checkpoint import RunState
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import made_plan
from circuits.training.loop import train
from circuits.training.losses import Step
from circuits.training.settings import Kind, Sparsity, TrainSettings
from circuits.training.start import far_apart, started
from circuits.training.step import adam, advance, advance_replaced
from tests.conftest import cached_subject
from tests.test_training import SMALL as DEFAULT
from tests.test_training import random_corpus, random_vectors, single
from tests.test_training_step import N_LAYERS, SETTINGS, random_batch, random_dictionary
from tests.tiny import tiny_model
from tests.tolerances import EXACT, FLOAT32

SMALL = replace(DEFAULT, bfloat16=False)  # as on the CPU
STRAIGHT = (Sparsity.JUMP_RELU, Sparsity.TANH)  # their number of entries depends on data
STEPS = 3  # of which the first is a refresh
HOST = torch.device("cpu")


def trained(
    settings: TrainSettings, device: torch.device, watch: Watch
) -> tuple[TrainedDictionary, Step]:
    """A dictionary after some steps, with dead features; what each waits for is counted by step."""
    dictionary = random_dictionary(settings).to(device)
    optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
    state.silent[:, :10] = 10**9
    step = None
    for number in range(STEPS):
        vectors = (random_batch(2 * number + 1).to(device), random_batch(2 * number + 2).to(device))
        watch.progress(str(number), 0, 0)
        step = advance(dictionary, optimizer, Activations(*vectors), state)
        watch.progress("between", 0, 0)
    assert step is not None
    return dictionary, step


@pytest.mark.parametrize("sparsity", Sparsity)
@pytest.mark.parametrize("kind", Kind)
def test_a_step_is_that_of_the_cpu_and_waits_for_nothing(kind: Kind, sparsity: Sparsity):
    """Where thresholds decide, it waits for the number of entries, once per layer."""
    settings = replace(SETTINGS, kind=kind, sparsity=sparsity, steps=10, bfloat16=False)
    with card() as watch:
        expected, last = trained(settings, HOST, watch)
        assert not watch.launches
        found, step = trained(settings, CARD, watch)
    torch.testing.assert_close(step.loss.detach().cpu(), last.loss.detach(), **EXACT)
    for (name, one), other in zip(found.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.detach().cpu(), other.detach(), **EXACT, msg=name)
    allowed = {"nonzero": N_LAYERS} if sparsity in STRAIGHT else {}
    assert [waits(watch, str(number)) for number in range(1, STEPS)] == [allowed] * (STEPS - 1)
    assert sum(waits(watch, "0").values()) <= N_LAYERS + 2 + sum(allowed.values())


@pytest.mark.parametrize("n_layers", [2, 5])
def test_the_final_phase_waits_once_per_pass_whatever_the_layers(n_layers: int):
    settings = replace(SMALL, sparsity=Sparsity.TOP_K, kl_steps=2)
    model = FrozenModel(tiny_model("llama", num_hidden_layers=n_layers).float())
    with card() as watch:
        subject = on_card(Subject(model, single().tokenizer, single().identity))
        made = stream(subject, settings)
        vectors = random_vectors(n_layers).float()
        dictionary = started(settings, vectors, vectors.flip(1)).to(CARD)
        optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
        state.plan, state.step = made_plan(dictionary, torch.ones(n_layers, 4, 16).to(CARD)), 30
        documents, _ = next(made.passes(0, 64))
        watch.progress("step", 0, 0)
        advance_replaced(made, dictionary, optimizer, documents, state)
    # Uploads of ids and their mask block; transformers looks at a mask in each of two passes.
    assert waits(watch, "step") == {"nonzero": 1, "_to_copy": 2, "_local_scalar_dense": 2}


def waits(watch: Watch, stage: str) -> dict[str, int]:
    """What the host waited for in one stage, by operation."""
    return {name: count for (own, name), count in watch.waits.items() if own == stage and count}


def held() -> Subject:
    """A tiny model on the card, in float32."""
    subject = cached_subject("gemma-3")
    model = FrozenModel(tiny_model("gemma-3").float())
    return on_card(Subject(model, subject.tokenizer, subject.identity))


def stream(subject: Subject, settings: TrainSettings) -> Stream:
    return Stream(subject.frozen, subject.tokenizer, random_corpus(), settings)


class Killed(Exception):
    """A run that ends before its time."""


def run(subject: Subject, settings: TrainSettings, folder: Path, last: int | None = None):
    """A run with a checkpoint every ten steps, killed after step `last`."""

    def on_step(logged) -> None:
        if logged.step == last:
            raise Killed

    return train(stream(subject, settings), folder, "run", on_step, checkpoint_every=10)


def assert_same(found: tuple[Transcoder, ...], expected: tuple[Transcoder, ...], **limits: float):
    for one, other in zip(found, expected, strict=True):
        pairs = [(one.encoder, other.encoder), (one.encoder_bias, other.encoder_bias)]
        pairs += [(one.decoder_bias, other.decoder_bias), *zip(one.decoders, other.decoders)]  # noqa: B905
        if isinstance(one.nonlinearity, JumpReLU):
            assert isinstance(other.nonlinearity, JumpReLU)
            pairs.append((one.nonlinearity.threshold, other.nonlinearity.threshold))
        for a, b in pairs:
            torch.testing.assert_close(a.cpu(), b.cpu(), **limits)


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        (Kind.PER_LAYER, Sparsity.TOP_K),
        (Kind.SKIP, Sparsity.JUMP_RELU),
        (Kind.CROSS_LAYER, Sparsity.BATCH_TOP_K),
    ],
)
def test_a_whole_run_is_that_of_the_cpu_and_resumes(kind: Kind, sparsity: Sparsity, tmp_path: Path):
    settings = replace(SMALL, kind=kind, sparsity=sparsity, kl_steps=2)
    expected = run(single(), settings, tmp_path / "cpu")
    with card():
        found = run(held(), settings, tmp_path / "card")
        with pytest.raises(Killed):
            run(held(), settings, tmp_path / "killed", last=20)
        resumed = run(held(), settings, tmp_path / "killed")
        assert_same(resumed, found, rtol=0, atol=0)
    assert_same(found, expected, **FLOAT32)


def test_the_model_computes_in_tensor_cores_unless_it_is_asked_not_to():
    expected = stream(single(), SMALL).pool(0).activations.outputs
    for rounded in (None, True, False):
        with card():
            made = stream(held(), replace(SMALL, bfloat16=rounded))
            found = made.pool(0).activations.outputs.cpu()
        error = float((found - expected).norm() / expected.norm())
        assert error < 1e-5 if rounded is False else 1e-5 < error < 1e-2


def test_a_run_of_the_card_resumes_on_the_cpu(tmp_path: Path):
    expected = run(single(), SMALL, tmp_path / "cpu")
    with card(), pytest.raises(Killed):
        run(held(), SMALL, tmp_path / "moved", last=20)
    assert_same(run(single(), SMALL, tmp_path / "moved"), expected, **FLOAT32)


def test_features_are_chosen_in_bfloat16_on_a_card_alone_by_default():
    inputs = random_batch(1)[0]
    dictionary = random_dictionary(SETTINGS)
    rounded = random_dictionary(replace(SETTINGS, bfloat16=True)).pre_activations(0, inputs)
    assert rounded.dtype == torch.bfloat16
    assert dictionary.pre_activations(0, inputs).dtype == inputs.dtype
    with card():
        found = dictionary.to(CARD).pre_activations(0, inputs.to(CARD))
        exact = dictionary.pre_activations(0, inputs.to(CARD), exact=True)
        assert torch.equal(found.cpu(), rounded)
        assert exact.dtype == inputs.dtype


def test_a_seed_chooses_the_same_documents_rows_and_examples_on_two_devices():
    own = stream(single(), SMALL)
    with card() as watch:
        moved = stream(held(), SMALL)
        for first in (0, own.pool(0).next):
            expected, found = own.pool(first), moved.pool(first)
            assert (found.first, found.next) == (expected.first, expected.next)
            for one, other in zip(*map(vectors, (found, expected)), strict=True):
                torch.testing.assert_close(one.cpu(), other, **FLOAT32)
        outputs = own.pool(0).activations.outputs[1]
        chosen = [
            far_apart(outputs.to(device), 24, torch.Generator().manual_seed(5)).cpu()
            for device in (HOST, CARD)
        ]
    assert torch.equal(*chosen)
    assert watch.launches


def vectors(pool) -> tuple[Tensor, Tensor]:
    return pool.activations.inputs, pool.activations.outputs


def test_samples_are_drawn_by_a_generator_of_the_models_device():
    """A made-up generator draws what the CPU's does; the host asks now and then whether to end."""
    expected = sampled_corpus(single(), 20, 0)._sampled(3)
    with card() as watch:
        found = sampled_corpus(held(), 20, 0)._sampled(3)
        asked = Counter(name for _, name in watch.waits)
    assert found == expected
    assert asked["_local_scalar_dense"] <= 2
