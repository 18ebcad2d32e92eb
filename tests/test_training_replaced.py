"""The final phase of training: the dictionary in the place of the MLPs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circuits.evaluation.fidelity import fidelity
from circuits.evaluation.replacement import Replacement
from circuits.features.transcoder import empty_transcoder
from circuits.features.transcoder_set import TranscoderSet
from circuits.training import loop, replaced
from circuits.training.activations import mlp_vectors
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import made_plan
from circuits.training.log import Logged
from circuits.training.loop import train
from circuits.training.replaced import replaced_loss
from circuits.training.settings import Kind, Sparsity, TrainSettings
from circuits.training.start import started
from circuits.training.step import adam
from graphs import DictionaryIdentity
from tests.conftest import cached_subject
from tests.test_training import LONG, SMALL, Killed, stream

SPARSE = replace(SMALL, sparsity=Sparsity.TOP_K, revival=0.0)
NAME = "gemma-3"


def documents() -> tuple[Tensor, Tensor]:
    ids = torch.randint(3, 23, (6, 9), generator=torch.Generator().manual_seed(1))
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:, 0] = False
    counted[2, 5:] = False
    return ids, counted


def begun(settings: TrainSettings) -> TrainedDictionary:
    frozen, (ids, counted) = cached_subject(NAME).frozen, documents()
    layers = settings.layers_of(frozen.n_layers)
    vectors = mlp_vectors(frozen, ids, settings.read, settings.write, layers)
    return started(settings, *(torch.stack([one[counted] for one in some]) for some in vectors))


def loss_of(dictionary: TrainedDictionary) -> Tensor:
    frozen, settings = cached_subject(NAME).frozen, dictionary.settings
    layers = settings.layers_of(frozen.n_layers)
    plan = made_plan(dictionary, torch.zeros(len(layers), 4, frozen.d_model).double())
    return replaced_loss(dictionary, frozen, layers, *documents(), plan).loss


@pytest.mark.parametrize("layers", [None, (1, 2)])
@pytest.mark.parametrize("kind", Kind)
def test_the_divergence_is_that_of_the_finished_dictionary(
    kind: Kind, layers: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("circuits.evaluation.fidelity.COMPARED", 5)
    settings = replace(SPARSE, kind=kind, layers=layers)
    dictionary, frozen = begun(settings), cached_subject(NAME).frozen
    numbers = settings.layers_of(frozen.n_layers)
    plan = made_plan(dictionary, torch.zeros(len(numbers), 4, frozen.d_model).double())
    step = replaced_loss(dictionary, frozen, numbers, *documents(), plan)
    folded = dictionary.folded(dictionary.log_threshold.exp())
    empty = empty_transcoder(frozen.d_model)
    whole = tuple(folded[numbers.index(layer)] if layer in numbers else empty for layer in range(3))
    identity = DictionaryIdentity(kind="transcoder", name="tiny")
    found = TranscoderSet(whole, settings.read, settings.write, identity, partial=True)
    ids, counted = documents()
    halves = ((ids[some], counted[some]) for some in (slice(0, 4), slice(4, None)))
    measured = fidelity(frozen, found, halves)
    divergence = step.loss - step.unexplained.mean()
    assert float(divergence.detach()) == pytest.approx(measured.divergence, rel=1e-6)
    assert measured.divergence > 1e-3
    model = Replacement(frozen, found)
    after = model.logits(ids, counted, places=numbers)
    same = model.logits(ids, None).argmax(-1) == after.argmax(-1)
    assert measured.agreement == pytest.approx(float(same[counted].double().mean()))
    assert 0 < measured.agreement < 1


@pytest.mark.parametrize("kind", Kind)
def test_the_gradient_goes_through_the_whole_model(kind: Kind, monkeypatch: pytest.MonkeyPatch):
    # What MLPs write for other inputs is a target, which has no gradient but does change.
    monkeypatch.setattr(replaced, "UNEXPLAINED", 0.0)
    dictionary = begun(replace(SPARSE, kind=kind))
    generator = torch.Generator().manual_seed(2)
    directions = [
        torch.randn(one.shape, generator=generator, dtype=torch.float64)
        for one in dictionary.parameters()
    ]
    loss_of(dictionary).backward()
    expected = sum(
        float((one.grad * direction).sum())
        for one, direction in zip(dictionary.parameters(), directions, strict=True)
        if one.grad is not None
    )
    values: list[float] = []
    for step in (1e-4, -2e-4):
        with torch.no_grad():
            for one, direction in zip(dictionary.parameters(), directions, strict=True):
                one += step * direction
        values.append(float(loss_of(dictionary).detach()))
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(expected, rel=1e-3)


def test_the_final_phase_lowers_the_divergence_and_resumes_with_the_same_bits(tmp_path: Path):
    settings = replace(LONG, sparsity=Sparsity.TOP_K, steps=40, kl_steps=60, kl_rate=1.0)
    steps: list[Logged] = []
    whole = train(stream(settings), tmp_path / "whole", "run", steps.append, checkpoint_every=20)
    assert [one.step for one in steps][-1] == 100
    assert steps[-1].loss < 0.9 * steps[4].loss

    for last in (50, 70):  # after the checkpoints of steps 40, where the phase begins, and 60

        def die(logged: Logged, last: int = last) -> None:
            if logged.step == last:
                raise Killed

        folder = tmp_path / str(last)
        with pytest.raises(Killed):
            train(stream(settings), folder, "run", die, checkpoint_every=20)
        again = train(stream(settings), folder, "run", lambda _: None)
        for one, other in zip(whole, again, strict=True):
            assert torch.equal(one.encoder, other.encoder)
            assert torch.equal(one.decoders[0], other.decoders[0])


def test_the_optimizer_begins_the_final_phase_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its gradients have other sizes, and by the former ones its first steps would be too long."""
    made: list[torch.optim.Optimizer] = []
    monkeypatch.setattr(loop, "adam", lambda dictionary: made.append(adam(dictionary)) or made[-1])
    seen: dict[int, set[float]] = {}

    def on_step(logged: Logged) -> None:
        seen[logged.step] = {float(one["step"]) for one in made[0].state.values()}

    train(stream(replace(SMALL, steps=30, kl_steps=20)), tmp_path, "run", on_step)
    assert seen == {10: {10}, 20: {20}, 30: {30}, 40: {10}, 50: {20}}
