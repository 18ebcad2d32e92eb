"""Training: gradients, folding, streams, and runs that were interrupted."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atlas_words import atlas_tokenizer
from circuits.corpora.corpus import (
    HELD_OUT,
    TextCorpus,
    divided,
    held_out,
    is_held_out,
    read_corpus,
    require_enough,
    sampled_corpus,
)
from circuits.corpora.unit import Unit
from circuits.features.files.reading import read_transcoders
from circuits.features.files.tensors import WeightsFormatError
from circuits.features.points import ReadPoint, WritePoint
from circuits.features.transcoder import TopK
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import PromptError, read_prompt
from circuits.model.prompt_rule import PromptRule
from circuits.model.subject import Subject
from circuits.recording.record import record
from circuits.training import loop, step
from circuits.training.activations import Stream, mlp_vectors, padded
from circuits.training.checkpoint import RunState, read_checkpoint, write_checkpoint
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import Encoded, Plan, encoded, made_plan
from circuits.training.finished.complete import trained_set
from circuits.training.finished.export import write_transcoders
from circuits.training.former_checkpoint import renamed
from circuits.training.log import LOG, Logged
from circuits.training.loop import train
from circuits.training.losses import Step, step_loss
from circuits.training.settings import CHECKPOINT, Kind, Sparsity, TrainingError, TrainSettings
from circuits.training.sparsity import active, jump_relu
from circuits.training.start import far_apart, from_examples, started
from circuits.training.step import schedule
from circuits.training.thresholds import thresholds
from graphs import Bos, DictionaryIdentity
from tests.conftest import cached_subject
from tests.test_cli import run
from tests.test_leftovers import left_by_the_dead
from tests.tiny import tiny_model, tiny_prompt, toy_tokenizer
from tests.tolerances import EXACT, FLOAT32

SMALL = TrainSettings(
    d_dict=24, l0=3.0, steps=30, batch_tokens=64, shuffled_tokens=256, dead_after=500
)
LONG = replace(SMALL, shuffled_tokens=1024)  # fewer pools, where many steps are taken


def random_vectors(layers: int = 3, tokens: int = 50, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(layers, tokens, 16, generator=generator, dtype=torch.float64) * 3 + 1


@cache
def single(name: str = "gemma-3") -> Subject:
    """A tiny model in float32, as activations are."""
    subject = cached_subject(name)
    return Subject(FrozenModel(tiny_model(name).float()), subject.tokenizer, subject.identity)


def random_corpus(count: int = 40) -> TextCorpus:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(3, 23, (count, 9), generator=generator).tolist()
    return TextCorpus(tuple([1, *row] for row in rows))


def stream(settings: TrainSettings = SMALL, name: str = "gemma-3") -> Stream:
    subject = single(name)
    return Stream(subject.frozen, subject.tokenizer, random_corpus(), settings)


def test_a_threshold_has_the_gradient_of_its_rectangle():
    pre = torch.tensor([0.48, 0.53, 0.9, 0.2], dtype=torch.float64, requires_grad=True)
    threshold = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    out = jump_relu(pre, threshold, 0.1)
    assert out.tolist() == [0, 0.53, 0.9, 0]
    (out * torch.tensor([2.0, 3.0, 5.0, 5.0])).sum().backward()
    assert pre.grad is not None and threshold.grad is not None  # noqa: PT018
    assert pre.grad.tolist() == [0, 3, 5, 0]
    assert threshold.grad.tolist() == pytest.approx([-0.5 / 0.1 * 2, -0.5 / 0.1 * 3, 0, 0])
    threshold.grad = pre.grad = None
    active(pre, threshold, 0.1).sum().backward()
    assert pre.grad is None
    assert threshold.grad.tolist() == pytest.approx([-1 / 0.1, -1 / 0.1, 0, 0])


def dense(found: Encoded, d_dict: int) -> Tensor:
    """Activations of all features, (layer, token, feat)."""
    rows: list[Tensor] = []
    for code, values in zip(found.codes, found.activations, strict=True):
        row = values.new_zeros(len(code.start), d_dict)
        rows.append(row.index_put((code.token, code.feature), values.detach()))
    return torch.stack(rows)


def written(dictionary: TrainedDictionary, activations: Tensor) -> Tensor:
    """What activations of all features write, by dense products."""
    rows = [torch.zeros_like(activations[0, :, :1]) for _ in activations]
    for layer, decoder in enumerate(dictionary.decoders):
        for offset, matrix in enumerate(decoder.detach().unbind(1)):
            rows[layer + offset] = rows[layer + offset] + activations[layer] @ matrix
    return torch.stack(rows)


def jumped(dictionary: TrainedDictionary, read: Tensor) -> Tensor:
    """Activations of all features by their thresholds."""
    pre = torch.stack([dictionary.pre_activations(*one) for one in enumerate(read)])
    return torch.where(pre > dictionary.log_threshold.exp()[:, None], pre, 0).detach()


@pytest.mark.parametrize("kind", Kind)
def test_a_folded_dictionary_says_what_the_trained_one_says(kind: Kind, tmp_path: Path):
    inputs, outputs = random_vectors(seed=1), random_vectors(seed=2)
    settings = replace(SMALL, kind=kind, sparsity=Sparsity.JUMP_RELU)
    dictionary = started(settings, inputs, outputs)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4
    threshold = dictionary.log_threshold.exp()
    normal = dictionary.inputs.apply_to(inputs)
    said = dictionary.linear(normal) + written(dictionary, jumped(dictionary, normal))
    scale, mean = dictionary.outputs.scale, dictionary.outputs.mean
    expected = said * scale[:, None, None] + mean[:, None]
    layers = dictionary.folded(threshold)
    identity = DictionaryIdentity(kind="transcoder", name="folded")
    folded = TranscoderSet(layers, ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION, identity)
    crossing = kind == Kind.CROSS_LAYER
    write_transcoders(folded, tmp_path, "tiny", cross_layer=crossing, dtype=torch.float64)
    for transcoders in (folded, read_transcoders(tmp_path)):
        for layer in range(3):
            total = transcoders.layers[layer].decoder_bias.expand(50, -1)
            if transcoders.layers[layer].skip is not None:
                total = total + inputs[layer] @ transcoders.layers[layer].skip.T
            for source in range(layer + 1):
                transcoder = transcoders.layers[source]
                if layer - source < transcoder.n_written:
                    pre = inputs[source] @ transcoder.encoder.T + transcoder.encoder_bias
                    total = (
                        total + transcoder.nonlinearity(pre) @ transcoder.decoders[layer - source]
                    )
            torch.testing.assert_close(total, expected[layer], **EXACT)


def test_features_come_from_examples_that_they_explain_alone():
    inputs, outputs = random_vectors(seed=1), random_vectors(seed=2)
    dictionary = started(SMALL, inputs, outputs)
    read, wanted = dictionary.inputs.apply_to(inputs), dictionary.outputs.apply_to(outputs)
    generator = torch.Generator().manual_seed(SMALL.seed)
    for layer in range(3):
        encoder, directions = from_examples(read[layer], wanted[layer], SMALL.d_dict, generator)
        pre = read[layer] @ encoder.T
        said = pre[:, :, None] * directions  # (token, feat, d_model): by each alone
        error = (said - wanted[layer][:, None]).norm(dim=2).min(0).values
        assert float(error.max()) < 1e-9
        decoder = dictionary.decoders[layer].detach()
        torch.testing.assert_close(decoder[:, 0], directions)
        assert not decoder[:, 1:].any()


@pytest.mark.parametrize("sparsity", Sparsity)
@pytest.mark.parametrize("kind", Kind)
def test_no_other_size_of_all_activations_explains_more_at_the_start(kind, sparsity):
    settings = replace(SMALL, kind=kind, sparsity=sparsity)
    inputs, outputs = random_vectors(seed=1), random_vectors(seed=2)
    dictionary = started(settings, inputs, outputs)
    read, wanted = dictionary.inputs.apply_to(inputs), dictionary.outputs.apply_to(outputs)
    found, _ = encoded(dictionary, read, made_plan(dictionary, read))
    sums = written(dictionary, dense(found, settings.d_dict))
    fits = (wanted * sums).sum((1, 2)) / sums.square().sum((1, 2))
    # A threshold is one of the values that it is compared with, and of a batch other features are
    # the largest with other sizes.
    rough = 1e-9 if sparsity == Sparsity.TOP_K else 0.1
    torch.testing.assert_close(fits, torch.ones(3).double(), atol=rough, rtol=0)
    unexplained = (wanted - sums).square().sum((1, 2)) / wanted.square().sum((1, 2))
    assert float(unexplained.max()) < 1


@pytest.mark.parametrize("sparsity", [Sparsity.TOP_K, Sparsity.BATCH_TOP_K])
def test_a_start_of_another_size_has_the_same_features_with_larger_activations(sparsity):
    settings = replace(SMALL, sparsity=sparsity)
    inputs, outputs = random_vectors(seed=1), random_vectors(seed=2)
    one, other = (
        started(replace(settings, start_size=size), inputs, outputs) for size in (1.0, 3.0)
    )
    read = one.inputs.apply_to(inputs)
    found = [encoded(either, read, made_plan(either, read))[0] for either in (one, other)]
    activations, larger = (dense(either, settings.d_dict) for either in found)
    assert activations.any()
    torch.testing.assert_close(larger, 3 * activations, **EXACT)
    torch.testing.assert_close(other.log_threshold, one.log_threshold + math.log(3), **EXACT)


@pytest.mark.parametrize("tokens", [10, 100])
def test_no_two_features_begin_alike_where_there_are_more_than_tokens(tokens: int):
    dictionary = started(SMALL, random_vectors(tokens=tokens), random_vectors(tokens=tokens))
    for encoder, decoder in zip(dictionary.encoders, dictionary.decoders, strict=True):
        assert len(encoder.detach().unique(dim=0)) == SMALL.d_dict
        n_examples = len(decoder.detach()[:, 0].unique(dim=0))
        assert n_examples == min(tokens, SMALL.d_dict)


def test_examples_are_far_apart():
    """Three small clouds far from each other give one example each."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(3).repeat_interleave(40, 0) * 100
    vectors = centres + torch.randn(120, 3, generator=generator)
    for seed in range(5):
        chosen = far_apart(vectors, 3, torch.Generator().manual_seed(seed))
        assert sorted((chosen // 40).tolist()) == [0, 1, 2]


def test_normalising_decoders_changes_their_norms_and_nothing_else():
    inputs, outputs = random_vectors(seed=1), random_vectors(seed=2)
    dictionary = started(SMALL, inputs, outputs)
    with torch.no_grad():
        for decoder in dictionary.decoders:
            decoder *= torch.linspace(0.5, 3, 24)[:, None, None]

    def said() -> Tensor:
        others = dictionary.inputs.apply_to(random_vectors(seed=7))
        return written(dictionary, jumped(dictionary, others))

    before = said()
    dictionary.normalise_decoders()
    torch.testing.assert_close(dictionary.decoder_norms(), torch.ones(3, 24).double(), **EXACT)
    torch.testing.assert_close(said(), before, **EXACT)


def test_mlp_vectors_are_those_of_a_recording(subject: Subject):
    recording = record(subject.frozen, tiny_prompt())
    ids, every = torch.tensor([tiny_prompt().ids]), range(subject.frozen.n_layers)
    reads, written = mlp_vectors(
        subject.frozen, ids, ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION, every
    )
    residual, _ = mlp_vectors(
        subject.frozen, ids, ReadPoint.RESIDUAL, WritePoint.CONTRIBUTION, every
    )
    for layer, block in enumerate(recording.blocks):
        torch.testing.assert_close(reads[layer][0], block.mlp_input, **FLOAT32)
        torch.testing.assert_close(written[layer][0], block.contribution, **FLOAT32)
        torch.testing.assert_close(residual[layer][0], block.mlp_residual, **FLOAT32)


def test_some_layers_read_and_write_as_among_all_and_no_layer_above_them_runs():
    model, ids = single().frozen, torch.tensor([tiny_prompt().ids])
    points = ReadPoint.MLP_INPUT, WritePoint.CONTRIBUTION
    whole = mlp_vectors(model, ids, *points, range(model.n_layers))
    ran: list[int] = []
    handles = [
        block.modules.mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    some = mlp_vectors(model, ids, *points, (1,))
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]
    for found, among_all in zip(some, whole, strict=True):
        torch.testing.assert_close(found, among_all[1:2])


def test_a_layer_that_the_model_lacks_is_not_trained():
    with pytest.raises(TrainingError, match="The model has 3 layers, 0 to 2: layer 3 cannot be"):
        stream(replace(SMALL, layers=(2, 3)))


def test_pools_hold_every_token_but_bos_padding_and_held_out_documents():
    settings = replace(SMALL, shuffled_tokens=10_000, batch_tokens=10)
    subject = single()
    documents = [[1, *(3 + (n + k * n) % 20 for k in range(1 + n % 5))] for n in range(40)]
    made = Stream(subject.frozen, subject.tokenizer, TextCorpus(tuple(documents)), settings)
    pool = made.pool(0)
    kept = [documents[n % 40] for n in range(pool.next)]
    tokens = sum(len(ids) - 1 for ids in kept if not is_held_out(ids))
    assert any(map(is_held_out, documents))
    # As many as were asked for, out of all of these.
    assert 10_000 <= tokens < 10_000 + 2 * 8192
    assert pool.activations.inputs.shape == (3, 10_000, 16)


def test_a_pool_can_be_made_again():
    made = stream()
    pools = made.pools(0)
    first = next(pools)
    before = first.activations.inputs.clone()
    assert made.pool(0) is first
    second = next(pools)
    assert second.first == first.next
    assert second.activations.inputs.data_ptr() == first.activations.inputs.data_ptr()
    assert not torch.equal(second.activations.inputs, before)
    again = stream().pool(first.next)
    assert torch.equal(again.activations.inputs, second.activations.inputs)
    assert torch.equal(made.pool(0).activations.inputs, before)


def test_a_pool_tells_how_full_it_is():
    settings = replace(SMALL, shuffled_tokens=20_000, batch_tokens=10)
    subject, corpus = single(), TextCorpus(tuple([1, 3 + n % 20, 4] for n in range(40)))
    told: list[tuple[str, int, int]] = []
    progress = lambda *one: told.append(one)  # noqa: E731
    Stream(subject.frozen, subject.tokenizer, corpus, settings, progress=progress).pool(0)
    stages, done, sizes = zip(*told, strict=True)
    assert set(stages) == {"activations"}
    assert list(done) == sorted(set(done))
    assert (done[0], done[-1]) == (0, sizes[-1])
    assert len(told) > 2


@pytest.mark.parametrize("sparsity", Sparsity)
@pytest.mark.parametrize("kind", Kind)
def test_training_explains_more_and_reaches_its_l0(kind: Kind, sparsity: Sparsity, tmp_path: Path):
    settings = replace(
        LONG, kind=kind, sparsity=sparsity, steps=300, learning_rate=5e-3, d_dict=48, l0=6.0
    )
    settings = replace(settings, bandwidth=0.3, penalty=0.01 if sparsity == Sparsity.TANH else 3.0)
    logged_steps: list[Logged] = []
    made = stream(settings)
    layers = train(made, tmp_path, "run", logged_steps.append)
    assert logged_steps[-1].explained > logged_steps[0].explained + 0.2
    if sparsity != Sparsity.TANH:
        assert logged_steps[-1].l0 == pytest.approx(6.0, rel=0.35)
    inputs = made.pool(0).activations.inputs
    counts = [
        layer.nonlinearity(inputs[i] @ layer.encoder.T + layer.encoder_bias).count_nonzero() / 1024
        for i, layer in enumerate(layers)
    ]
    assert float(sum(counts) / 3) == pytest.approx(logged_steps[-1].l0, rel=0.4)


@pytest.mark.parametrize("kind", [Kind.PER_LAYER, Kind.CROSS_LAYER])
def test_the_final_thresholds_keep_as_many_as_the_largest_of_a_batch(kind: Kind):
    made = stream(replace(SMALL, kind=kind))
    dictionary = started(made.settings, *vars(made.pool(0).activations).values())
    read = dictionary.inputs.apply_to(made.pool(40).activations.inputs)
    pre = torch.stack([dictionary.pre_activations(*one) for one in enumerate(read)])
    by_threshold = (pre > thresholds(dictionary, made, 0)[:, None]).sum((1, 2)) / pre.shape[1]
    if kind == Kind.PER_LAYER:
        assert by_threshold.tolist() == pytest.approx([3.0] * 3, rel=0.2)
    else:
        plan = made_plan(dictionary, read)
        assert max(plan.budgets) > 1.2 * min(plan.budgets)
        assert by_threshold.tolist() == pytest.approx(plan.budgets, rel=0.15)
        assert float(by_threshold.mean()) == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("kind", Kind)
def test_top_k_is_exported_as_top_k(kind: Kind, tmp_path: Path):
    settings = replace(SMALL, kind=kind, sparsity=Sparsity.TOP_K)
    layers = train(stream(settings), tmp_path / "run", "run", lambda _: None)
    assert {layer.nonlinearity for layer in layers} == {TopK(3)}
    identity = DictionaryIdentity(kind="transcoder", name="top")
    whole = TranscoderSet(layers, settings.read, settings.write, identity)
    write_transcoders(whole, tmp_path / "set", "tiny", cross_layer=kind == Kind.CROSS_LAYER)
    read = read_transcoders(tmp_path / "set")
    assert {layer.nonlinearity for layer in read.layers} == {TopK(3)}


def test_a_run_that_resumes_makes_no_start_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    settings = replace(SMALL, steps=4)
    before = train(stream(settings), tmp_path, "run", lambda _: None, checkpoint_every=2)
    monkeypatch.setattr(loop, "started", lambda *_: pytest.fail("examples are chosen again"))
    after = train(stream(settings), tmp_path, "run", lambda _: None)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.encoder, other.encoder)
        assert torch.equal(one.decoders[0], other.decoders[0])


@pytest.mark.parametrize("sparsity", [Sparsity.JUMP_RELU, Sparsity.TANH])
def test_a_penalty_leaves_fewer_features(sparsity: Sparsity, tmp_path: Path):
    """Without it the L0 goes where the error leads, from three times the target."""
    l0: list[float] = []
    for penalty in (0.0, 1.0):
        former = {"steps": 300, "learning_rate": 1e-2, "warm_up": 0.05, "cool_down": 0.25}
        settings = replace(LONG, sparsity=sparsity, bandwidth=0.5, penalty=penalty, **former)
        made = stream(settings)
        first = made.pool(0).activations
        begun = started(replace(settings, l0=9.0), first.inputs, first.outputs)
        begun.settings = settings
        logged_steps: list[Logged] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "_initial", lambda _, begun=begun: begun)
            (tmp_path / str(penalty)).mkdir()
            train(made, tmp_path / str(penalty), "run", logged_steps.append)
        l0.append(logged_steps[-1].l0)
    assert l0[1] < 0.6 * l0[0]
    if sparsity == Sparsity.JUMP_RELU:
        assert l0[1] == pytest.approx(3.0, rel=0.35)


def test_features_chosen_in_bfloat16_explain_nearly_as_much(tmp_path: Path):
    explained: list[float] = []
    for bfloat16 in (False, True):
        folder = tmp_path / str(bfloat16)
        folder.mkdir()
        logged_steps: list[Logged] = []
        settings = replace(LONG, bfloat16=bfloat16, steps=100, learning_rate=5e-3)
        layers = train(stream(settings), folder, "run", logged_steps.append)
        assert {layer.decoders[0].dtype for layer in layers} == {torch.float32}
        explained.append(logged_steps[-1].explained)
    assert explained[0] != explained[1]
    assert explained[1] == pytest.approx(explained[0], abs=0.05)


def test_a_run_that_diverges_says_so_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def diverge(*arguments: object) -> Step:
        step = step_loss(*arguments)  # pyright: ignore[reportArgumentType]
        done.append(1)
        return replace(step, loss=step.loss * math.nan) if len(done) > 25 else step

    done: list[int] = []
    monkeypatch.setattr(step, "step_loss", diverge)
    with pytest.raises(TrainingError, match="After 25 steps the loss or its gradient"):
        train(stream(), tmp_path, "run", lambda _: None, checkpoint_every=10)
    monkeypatch.undo()
    logged_steps: list[Logged] = []
    train(stream(), tmp_path, "run", logged_steps.append, checkpoint_every=10)
    assert logged_steps[0].step == 30


def first_step(settings: TrainSettings = SMALL) -> tuple[TrainedDictionary, Tensor, Tensor]:
    """A dictionary before its first step, and a pool's inputs and outputs."""
    pool = stream().pool(0).activations
    return started(settings, pool.inputs, pool.outputs), pool.inputs, pool.outputs


def test_dead_features_are_pulled_towards_the_error():
    dead = torch.zeros(3, 24, dtype=torch.bool)
    dead[1, 5] = True
    for revival, moves in ((0.0, False), (1.0, True)):
        dictionary, inputs, outputs = first_step(replace(SMALL, revival=revival))
        with torch.no_grad():
            dictionary.encoders[1][5] *= 1e-3  # too small to be among the largest of the batch
        plan = made_plan(dictionary, dictionary.inputs.apply_to(inputs), dead)
        step = step_loss(dictionary, inputs, outputs, plan, torch.zeros(3, 24), 1.0)
        assert not (dense(step.encoded, 24)[1, :, 5] > 0).any()
        step.loss.backward()
        gradient = dictionary.encoders[1].grad
        assert gradient is not None
        assert bool(gradient[5].any()) == moves


def test_features_that_fire_too_often_are_pushed_down():
    dictionary, inputs, outputs = first_step()
    plan = made_plan(dictionary, dictionary.inputs.apply_to(inputs))
    losses = []
    for share in (0.05, 0.5):
        frequency = torch.full((3, 24), share)
        step = step_loss(dictionary, inputs, outputs, plan, frequency, 1.0)
        losses.append(step.loss)
    expected = 0.1 * dense(step.encoded, 24).mean((0, 1)).sum()
    torch.testing.assert_close(losses[1] - losses[0], expected, **FLOAT32)


def test_prefixes_add_the_loss_of_doing_alone():
    dictionary, inputs, outputs = first_step()
    plan = made_plan(dictionary, dictionary.inputs.apply_to(inputs))
    rest = (inputs, outputs, plan, torch.zeros(3, 24), 1.0)
    plain = step_loss(dictionary, *rest)
    dictionary.settings = replace(SMALL, prefixes=(0.5,))
    nested = step_loss(dictionary, *rest)
    wanted = dictionary.outputs.apply_to(outputs)
    half = dense(plain.encoded, 24)
    half[:, :, 12:] = 0
    error = wanted - written(dictionary, half)
    alone = (error.square().mean((1, 2)) / wanted.square().mean((1, 2))).mean()
    torch.testing.assert_close(nested.loss - plain.loss, alone, **FLOAT32)


def test_rate_and_penalties_rise_and_the_rate_falls():
    settings = replace(SMALL, steps=100, warm_up=0.1, cool_down=0.5, learning_rate=1.0)
    assert schedule(settings, 0) == pytest.approx((0.1, 0.1))
    assert schedule(settings, 20) == pytest.approx((1.0, 1.0))
    assert schedule(settings, 75) == pytest.approx((0.5, 1.0))


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.usefixtures("either_system")
@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        (Kind.CROSS_LAYER, Sparsity.BATCH_TOP_K),
        (Kind.SKIP, Sparsity.JUMP_RELU),
        (Kind.PER_LAYER, Sparsity.TANH),
    ],
)
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, kind: Kind, sparsity: Sparsity):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    # Three batches to a pool; a line is logged after the checkpoint that the run goes on from.
    settings = replace(SMALL, kind=kind, sparsity=sparsity, shuffled_tokens=200, steps=80)
    train(stream(settings), whole, "run", lambda _: None, checkpoint_every=20)

    def die(logged: Logged) -> None:
        if logged.step == 60:
            raise Killed

    with pytest.raises(Killed):
        train(stream(settings), broken, "run", die, checkpoint_every=20)
    assert len((broken / LOG).read_text().splitlines()) == 1
    with (broken / LOG).open("a") as log:
        log.write('{"step": 5')  # as if it had been killed while writing
    left_by_the_dead(broken).write_bytes(b"half a checkpoint")
    logged_steps: list[Logged] = []
    train(stream(settings), broken, "run", logged_steps.append, checkpoint_every=20)
    assert logged_steps[0].step == 50
    assert sorted(path.name for path in broken.iterdir()) == [CHECKPOINT, LOG]
    assert (broken / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert (broken / LOG).read_text() == (whole / LOG).read_text()


def test_nothing_is_written_before_the_first_checkpoint_and_then_the_whole_log(tmp_path: Path):
    def die(logged: Logged) -> None:
        if logged.step == 60:
            raise Killed

    settings = replace(SMALL, steps=70)
    with pytest.raises(Killed):
        train(stream(settings), tmp_path / "run", "run", die, checkpoint_every=60)
    assert list(tmp_path.iterdir()) == []
    train(stream(settings), tmp_path / "run", "run", lambda _: None, checkpoint_every=60)
    lines = (tmp_path / "run" / LOG).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [50, 70]


def test_of_two_runs_that_begin_in_one_folder_one_goes_on(tmp_path: Path):
    def other_is_faster(logged: Logged) -> None:
        if logged.step == 10:
            train(stream(), tmp_path, "faster", lambda _: None, checkpoint_every=1000)

    with pytest.raises(TrainingError, match="belongs to a run with other settings"):
        train(stream(), tmp_path, "run", other_is_faster, checkpoint_every=1000)
    train(stream(), tmp_path, "faster", lambda _: None)


def test_a_checkpoint_of_another_run_is_refused_and_stays(tmp_path: Path):
    train(stream(), tmp_path, "run", lambda _: None)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(TrainingError, match="belongs to a run with other settings"):
        train(stream(), tmp_path, "another", lambda _: None)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    (tmp_path / CHECKPOINT).write_bytes(before[:200])
    with pytest.raises(TrainingError, match="is not a complete checkpoint"):
        train(stream(), tmp_path, "run", lambda _: None)


def test_other_settings_are_another_run():
    assert SMALL.run_name("a") == replace(SMALL).run_name("a")
    assert SMALL.run_name("a") != SMALL.run_name("b")
    assert SMALL.run_name("a") != replace(SMALL, l0=4.0).run_name("a")


def test_a_checkpoint_that_cannot_be_written_says_so(tmp_path: Path):
    dictionary = started(SMALL, random_vectors(), random_vectors())
    optimizer = torch.optim.Adam(dictionary.parameters())
    state = RunState.initial(dictionary.encoder_bias.detach())
    with pytest.raises(TrainingError, match="The checkpoint was not written: Cannot write"):
        write_checkpoint(tmp_path / "none" / "x", "run", dictionary, optimizer, state)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path):
    dictionary = started(SMALL, random_vectors(), random_vectors())
    optimizer = torch.optim.Adam(dictionary.parameters())
    state = RunState.initial(dictionary.encoder_bias.detach())
    state.step, state.document, state.batch = 7, 3, 2
    state.plan = Plan.of(torch.rand(3), torch.rand(3, 24) > 0.5)
    write_checkpoint(tmp_path / "x", "run", dictionary, optimizer, state)
    other = TrainedDictionary(SMALL, 3, random_vectors().shape[2]).double()
    read = read_checkpoint(tmp_path / "x", "run", other, torch.optim.Adam(other.parameters()))
    assert (read.step, read.document, read.batch, int(read.finite_steps)) == (7, 3, 2, 7)
    assert read.plan is not None
    assert read.plan.budgets == state.plan.budgets
    assert torch.equal(read.plan.dead, state.plan.dead)
    for name, value in dictionary.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"l0": 50.0}, "An L0 of 50 cannot be reached with 24 features per layer"),
        ({"steps": 0}, "steps must be above 0, got 0"),
        ({"batch_tokens": 512}, "256 shuffled tokens do not fill a batch of 512"),
        ({"prefixes": (1.5,)}, "Matryoshka prefixes must be shares"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0, got nan"),
        ({"penalty": -1.0}, "penalty must not be below 0"),
        ({"l0": 2.5, "sparsity": Sparsity.TOP_K}, "topk needs a whole number of features"),
        ({"layers": (2, 1)}, "must be numbers from 0 on, each once and in order"),
        ({"layers": ()}, "must be numbers from 0 on, each once and in order"),
        ({"layers": (0, 2)}, "has all layers from its first to its last"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float], message: str):
    with pytest.raises(TrainingError, match=message):
        replace(SMALL, **wrong)


def test_a_corpus_is_lines_of_a_file_or_files_of_a_folder(tmp_path: Path):
    (tmp_path / "a.txt").write_text("fj\n\nbfoifj\n")
    lines = read_corpus(tmp_path / "a.txt", toy_tokenizer(), 4)
    assert lines.ids == ([1, 5, 9], [1, 5, 14, 8], [1, 5, 9])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("o")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    assert read_corpus(tmp_path, toy_tokenizer(), 100).ids[-1] == [1, 14]
    assert list(islice(lines.documents(2), 3)) == [[1, 5, 9], [1, 5, 9], [1, 5, 14, 8]]


@pytest.mark.parametrize(
    ("bos", "adds_bos", "expected"),
    [
        (Bos.AUTO, True, ([1, 5, 14, 8], [1, 5, 9], [1, 5])),
        (Bos.AUTO, False, ([1, 5, 14, 8], [5, 9], [5])),
        (Bos.NEVER, True, ([1, 5, 14, 8], [5, 9], [5])),
        (Bos.ALWAYS, False, ([1, 5, 14, 8], [1, 5, 9], [1, 5])),
    ],
)
def test_documents_begin_as_prompts_do(
    tmp_path: Path, bos: Bos, adds_bos: bool, expected: tuple[list[int], ...]
):
    tokenizer = toy_tokenizer(adds_bos=adds_bos)
    (tmp_path / "a.txt").write_text("bfoi\nfj\nf")
    documents = read_corpus(tmp_path / "a.txt", tokenizer, 5, bos).ids
    assert documents == expected
    for ids, text in zip(documents, ("bfoi", "fj", "f"), strict=True):
        assert read_prompt(text, tokenizer, PromptRule(bos)).ids == tuple(ids)


def test_a_text_is_divided_into_lines_or_paragraphs_or_not(tmp_path: Path):
    text = "one\ntwo\n \n\nthree\nfour\n"
    assert divided(text, Unit.LINE) == ["one", "two", " ", "", "three", "four", ""]
    assert divided(text, Unit.PARAGRAPH) == ["one\ntwo", "three\nfour\n"]
    assert divided(text, Unit.FILE) == [text]
    (tmp_path / "a.txt").write_text("fj\n\nif\n\noj")
    numbers = {
        unit: len(read_corpus(tmp_path / "a.txt", toy_tokenizer(), 5, unit=unit).ids)
        for unit in (Unit.LINE, Unit.PARAGRAPH)
    }
    assert numbers == {Unit.LINE: 3, Unit.PARAGRAPH: 3}


def test_long_documents_are_cut_so_that_what_is_in_front_counts(tmp_path: Path):
    (tmp_path / "a.txt").write_text("fjoif")
    pieces = [
        read_corpus(tmp_path / "a.txt", toy_tokenizer(), 3, bos).ids
        for bos in (Bos.ALWAYS, Bos.NEVER)
    ]
    assert pieces == [([1, 5, 9], [1, 14, 8], [1, 5]), ([5, 9, 14], [8, 5])]


def test_a_corpus_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"Cannot read .*: No such file"):
        read_corpus(tmp_path / "none", toy_tokenizer(), 8)
    with pytest.raises(TrainingError, match="has no text files: expected names ending in"):
        read_corpus(tmp_path, toy_tokenizer(), 8)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="is not UTF-8 text"):
        read_corpus(tmp_path / "a.txt", toy_tokenizer(), 8)
    (tmp_path / "a.txt").write_bytes(b"fj\0fj")
    with pytest.raises(TrainingError, match="is not UTF-8 text"):
        read_corpus(tmp_path / "a.txt", toy_tokenizer(), 8)
    (tmp_path / "a.txt").write_text("The capital of Gotham is")
    with pytest.raises(PromptError, match="does not contain 'Gotham'"):
        read_corpus(tmp_path / "a.txt", atlas_tokenizer(), 8)
    (tmp_path / "a.txt").write_text("\n\n")
    with pytest.raises(TrainingError, match="has no tokens"):
        read_corpus(tmp_path / "a.txt", toy_tokenizer(), 8)


def test_samples_are_the_same_from_any_document_on():
    corpus = sampled_corpus(single("llama"), length=7, seed=0)
    whole = list(islice(corpus.documents(0), 100))
    assert list(islice(corpus.documents(70), 30)) == whole[70:]
    assert all(ids[0] == 1 and 2 not in ids[1:-1] and len(ids) <= 7 for ids in whole)
    assert {2} < {ids[-1] for ids in whole}
    assert len({tuple(ids) for ids in whole}) > 50
    with pytest.raises(TrainingError, match="no BOS or EOS token"):
        sampled_corpus(Subject(single().frozen, toy_tokenizer(bos=None), single().identity), 7, 0)


def test_samples_follow_the_model():
    """The second token of many samples is as frequent as the model says."""
    subject = single("llama")
    corpus = sampled_corpus(subject, length=2, seed=0)
    drawn = torch.tensor([ids[1] for ids in islice(corpus.documents(0), 6400)])
    logits = subject.frozen.model(input_ids=torch.tensor([[1]])).logits[0, -1]
    frequency = torch.bincount(drawn, minlength=23) / 6400
    assert float((frequency - logits.softmax(-1)).abs().max()) < 0.03


def test_held_out_documents_are_in_no_pool():
    corpus = TextCorpus(tuple([1, 3 + n % 20, 3 + n // 20] for n in range(400)))
    share = sum(map(is_held_out, corpus.ids)) / 400
    assert share == pytest.approx(1 / HELD_OUT, abs=0.03)
    told: list[tuple[str, int, int]] = []
    kept = held_out(corpus, toy_tokenizer(), 5, progress=lambda *one: told.append(one))
    assert told == [("held out", done, 5) for done in range(6)]
    assert kept == [ids for ids in corpus.ids if is_held_out(ids)][:5]
    trained = list(islice(single_stream(corpus)._trained(0), 380))
    assert not any(is_held_out(ids) for _, ids in trained)


def single_stream(corpus: TextCorpus) -> Stream:
    subject = single()
    return Stream(subject.frozen, subject.tokenizer, corpus, SMALL)


def test_a_corpus_of_nothing_to_train_on_is_refused_and_not_searched_for_ever():
    only = next([1, 3, n] for n in range(3, 23) if is_held_out([1, 3, n]))
    for documents in ((only,), ([1],)):
        with pytest.raises(TrainingError, match="10,000 documents in a row are empty or held out"):
            single_stream(TextCorpus(documents)).pool(0)
    with pytest.raises(TrainingError, match="No document of the corpus is held out"):
        held_out(TextCorpus(([1, 3, 4], [], [1])), toy_tokenizer(), 5)


def test_a_corpus_must_hold_enough():
    corpus = TextCorpus(tuple([1, 3 + n % 20, 3 + n // 20] for n in range(100)))
    require_enough(corpus, 300)
    with pytest.raises(TrainingError, match="has 300 tokens and one batch takes 301"):
        require_enough(corpus, 301)


def test_other_documents_are_another_corpus():
    corpus = TextCorpus(([1, 3, 4], [1, 5]))
    assert corpus.fingerprint() == TextCorpus(([1, 3, 4], [1, 5])).fingerprint()
    for other in (([1, 3], [4, 1, 5]), ([1, 5], [1, 3, 4]), ([1, 3, 4],)):
        assert TextCorpus(other).fingerprint() != corpus.fingerprint()
    samples = [sampled_corpus(single("llama"), 7, seed).fingerprint() for seed in (0, 1)]
    assert samples[0] != samples[1]


@pytest.mark.usefixtures("few_graphs")
def test_a_killed_command_goes_on(model_folder: Path, tmp_path: Path):
    corpus = tmp_path / "corpus.txt"
    generator = random.Random(1)
    corpus.write_text("\n".join("".join(generator.choices("fjoidgh", k=30)) for _ in range(400)))

    def command(out: Path) -> tuple[str, ...]:
        options = ["--width", "24", "--l0", "3", "--steps", "200", "--batch", "64"]
        options += ["--checkpoint-every", "5", "--model", str(model_folder), "--out", str(out)]
        return "train", str(corpus), *options

    whole, broken = tmp_path / "whole" / "run", tmp_path / "broken" / "run"
    assert run(*command(whole)).exit_code == 0
    started = [sys.executable, "-m", "headwater", *command(broken)]
    running = subprocess.Popen(started, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (broken / CHECKPOINT).exists() and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (broken / "config.yaml").exists()
    assert run(*command(broken)).exit_code == 0

    def written(folder: Path) -> dict[Path, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in files}

    assert len(written(whole)) > 10
    assert written(whole) == written(broken)


def test_what_all_tokens_share_wakes_no_example():
    """Encoders are matched through the inverse covariance: most of the inputs is one direction."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(200, 1, generator=generator) * 10
    inputs = common * torch.ones(16) + torch.randn(200, 16, generator=generator)
    outputs = torch.randn(200, 16, generator=generator)
    encoder, _ = from_examples(inputs, outputs, 8, generator)
    along = (encoder @ torch.ones(16)).abs() / 4
    across = (encoder - (encoder @ torch.ones(16))[:, None] / 16).norm(dim=1)
    assert float((along / across).max()) < 0.2


def test_positions_that_are_context_only_by_request_are_in_no_pool():
    documents = ([1, 5, 9, 14], [1, 5], [1, 5, 9])
    tokenizer = toy_tokenizer()
    _, counted = padded([*documents], tokenizer, torch.device("cpu"), 2)
    assert counted.tolist() == [
        [False, False, True, True],
        [False, False, False, False],
        [False, False, True, False],
    ]
    assert padded([*documents], tokenizer, torch.device("cpu"))[1].sum().item() == 6
    corpus = TextCorpus(tuple([1, 3 + n % 20, 3 + n // 20][: 2 + n % 2] for n in range(400)))
    assert {len(ids) for ids in held_out(corpus, tokenizer, 9, 2)} == {3}
    made = Stream(single().frozen, tokenizer, corpus, SMALL, 2)
    assert {len(ids) for _, ids in islice(made._trained(0), 100)} == {3}


def test_samples_of_a_tokenizer_that_adds_no_bos_are_drawn_behind_it_and_begin_without():
    whole = single("llama")
    subject = Subject(whole.frozen, toy_tokenizer(adds_bos=False), whole.identity)
    without = list(islice(sampled_corpus(subject, 6, 0).documents(0), 64))
    behind = list(islice(sampled_corpus(subject, 7, 0, Bos.ALWAYS).documents(0), 64))
    assert behind == [[1, *ids] for ids in without]


def test_samples_without_bos_do_not_start_with_what_they_were_drawn_behind():
    tokenizer = toy_tokenizer(bos=None, eos=2)
    subject = Subject(single("llama").frozen, tokenizer, single("llama").identity)
    documents = list(islice(sampled_corpus(subject, length=7, seed=0).documents(0), 64))
    assert sum(ids[0] == 2 for ids in documents) < 32
    assert max(map(len, documents)) == 7


def test_examples_drawn_many_at_a_time_have_the_probabilities_of_one_at_a_time():
    points = torch.tensor([[1.0, 0], [0, 1], [3, 0], [3, 1], [0.5, 2]], dtype=torch.float64)
    expected = torch.zeros(5, 5, dtype=torch.float64)
    first = points.square().sum(1)
    for one in range(5):
        then = torch.minimum(first, (points - points[one]).square().sum(1))
        expected[one] = first[one] / first.sum() * then / then.sum()
    found, runs = torch.zeros(5, 5), 4000
    for seed in range(runs):
        found[tuple(far_apart(points, 2, torch.Generator().manual_seed(seed)))] += 1
    error = (expected * (1 - expected) / runs).sqrt().clamp(min=1e-9)
    assert float(((found / runs - expected) / error).abs().max()) < 4


def test_more_examples_than_distinct_tokens_are_chosen_without_end():
    vectors = torch.eye(3).repeat(2, 1)
    chosen = far_apart(vectors, 10, torch.Generator().manual_seed(0))
    assert len(chosen) == 10
    assert set((chosen % 3).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("kind", Kind)
def test_tensors_of_an_earlier_layout_get_the_present_one(kind: Kind):
    shape, crossing = (2, 3), kind == Kind.CROSS_LAYER

    def moment(name: str, source: int, written: int) -> Tensor:
        """A matrix of its own for every kind of tensor and pair of layers."""
        return torch.full(shape, float(1000 * len(name) + 10 * source + written))

    names = ("encoder", "encoder_bias", "log_threshold", "decoder_bias")
    names += ("skip",) if kind == Kind.SKIP else ()
    names += tuple(f"decoders.{m}" for m in range(3))
    old: dict[str, Tensor] = {"silent": torch.zeros(3, 2)}
    for start, end in (
        ("parameter.", ""),
        ("optimizer.", ".exp_avg"),
        ("optimizer.", ".exp_avg_sq"),
    ):
        for number, name in enumerate(names):
            if name == "log_threshold" and end:
                continue  # no moments of what had no gradient
            sources, _, m = range(3), *name.partition(".")[1:]
            if m:
                sources = range(0 if crossing else int(m), int(m) + 1)
            rows = torch.stack([moment(start + end, s, int(m or s)) for s in sources])
            old[start + (str(number) if end else name) + end] = rows
            if end:
                old[f"{start}{number}.step"] = torch.tensor(7.0)
    found = renamed(old)
    for start, end in (
        ("parameter.", ""),
        ("optimizer.", ".exp_avg"),
        ("optimizer.", ".exp_avg_sq"),
    ):
        for layer in range(3):
            expected = moment(start + end, layer, layer)
            assert torch.equal(found[f"{start}encoders.{layer}{end}"], expected)
            decoder = found[f"{start}decoders.{layer}{end}"]
            to = range(layer, 3) if crossing else [layer]
            wanted = torch.stack([moment(start + end, layer, m) for m in to], 1)
            assert torch.equal(decoder, wanted)
        assert f"{start}encoder_bias{end}" in found
        assert (f"{start}skip{end}" in found) == (kind == Kind.SKIP)
    assert not {name for name in found if name.split(".")[1:2] == ["0"]}
    assert all(float(found[f"optimizer.{n}.step"]) == 7 for n in ("encoders.2", "decoders.2"))
    assert renamed(found) is found


@pytest.mark.parametrize("kind", [Kind.PER_LAYER, Kind.CROSS_LAYER])
def test_a_set_of_some_layers_names_what_is_wrong_with_its_list(kind: Kind, tmp_path: Path):
    settings = replace(SMALL, kind=kind, steps=1, layers=(1, 2))
    made = stream(settings)
    layers = train(made, tmp_path / "run", "run", lambda _: None)
    whole = trained_set(layers, made, DictionaryIdentity(kind="transcoder", name="some"))
    write_transcoders(whole, tmp_path / "set", "tiny", cross_layer=kind == Kind.CROSS_LAYER)
    assert [one.d_dict for one in read_transcoders(tmp_path / "set").layers] == [0, 24, 24]
    config = tmp_path / "set" / "config.yaml"
    good = config.read_text()
    name = "W_enc_7.safetensors" if kind == Kind.CROSS_LAYER else "layer_7.safetensors"
    for listed, message in (
        ("[1, 2, 7]", f"lists layers .1, 2, 7., but .* lacks {name}: download"),
        ("[]", "lists layers .., but .* lacks all"),
        ("[-1]", "`layers` in .* must be a list of layer numbers"),
        ("yes", "`layers` in .* must be a list of layer numbers"),
    ):
        config.write_text(good.replace("layers:\n- 1\n- 2\n", f"layers: {listed}\n"))
        with pytest.raises(WeightsFormatError, match=message):
            read_transcoders(tmp_path / "set")
