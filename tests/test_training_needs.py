"""What a training run needs is known before it starts, and shown while it runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from card import MEMORY, card, on_card
from rich.console import Console

from circuits import progress
from circuits.corpora.corpus import TextCorpus, held_out
from circuits.evaluation.fidelity import Fidelity
from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject
from circuits.progress import duration, progress_bar
from circuits.training import needs as needs_module
from circuits.training.activations import Stream
from circuits.training.checkpoint import RunState
from circuits.training.encoding import made_plan
from circuits.training.finished.complete import some
from circuits.training.finished.report import TrainingReport
from circuits.training.loop import train
from circuits.training.losses import step_loss
from circuits.training.needs import needs, needs_of, random_step, require_memory, seconds
from circuits.training.settings import Kind, Sparsity, TrainingError, TrainSettings
from circuits.training.start import started
from circuits.training.step import adam, advance
from tests.test_training import SMALL, random_corpus, single, stream
from tests.tiny import tiny_model, toy_tokenizer


@pytest.mark.parametrize("kind", Kind)
def test_parameters_and_pool_take_the_bytes_that_were_foreseen(kind: Kind):
    settings = replace(SMALL, kind=kind, sparsity=Sparsity.JUMP_RELU)
    made = stream(settings)
    pool = made.pool(0).activations
    found = needs(settings, 3, pool.inputs.shape[2])
    assert found.pool == pool.inputs.nbytes + pool.outputs.nbytes
    dictionary = started(settings, pool.inputs, pool.outputs)
    optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
    advance(dictionary, optimizer, pool.take(slice(0, 64)), state)
    held = sum(parameter.nbytes for parameter in dictionary.parameters())
    held += sum(one.grad.nbytes for one in dictionary.parameters() if one.grad is not None)
    held += sum(m.nbytes for one in optimizer.state.values() for m in one.values() if m.dim())
    assert found.parameters == held


@pytest.mark.parametrize(
    ("kind", "sparsity"),
    [
        (Kind.PER_LAYER, Sparsity.BATCH_TOP_K),
        (Kind.SKIP, Sparsity.JUMP_RELU),
        (Kind.CROSS_LAYER, Sparsity.TOP_K),
        (Kind.CROSS_LAYER, Sparsity.BATCH_TOP_K),
    ],
)
@pytest.mark.parametrize(
    "sizes",
    [
        {"d_dict": 512, "batch_tokens": 512, "shuffled_tokens": 512, "l0": 20.0},
        {"d_dict": 1024, "batch_tokens": 64, "shuffled_tokens": 64, "l0": 4.0},
        {"d_dict": 64, "batch_tokens": 64, "shuffled_tokens": 4096, "l0": 4.0},
    ],
    ids=["tokens", "features", "pool"],
)
def test_a_whole_run_holds_what_was_foreseen(
    kind: Kind, sparsity: Sparsity, sizes: dict, tmp_path: Path
):
    """From the first pool to the thresholds at the end, with dead features in between."""
    settings = replace(SMALL, kind=kind, sparsity=sparsity, steps=3, dead_after=1, **sizes)
    foreseen, held = foreseen_and_held(
        replace(settings, bfloat16=False), "llama", tmp_path, num_hidden_layers=8
    )
    assert held <= foreseen <= 3 * held


@pytest.mark.parametrize(
    "told", [{"vocab_size": 4000}, {"hidden_size": 64, "intermediate_size": 256}], ids=str
)
def test_a_final_phase_holds_what_was_foreseen(told: dict, tmp_path: Path):
    settings = replace(SMALL, steps=1, kl_steps=2, batch_tokens=256, bfloat16=False)
    foreseen, held = foreseen_and_held(settings, "gemma-3", tmp_path, **told)
    assert held <= foreseen <= 2.2 * held


def foreseen_and_held(
    settings: TrainSettings, name: str, folder: Path, **told: object
) -> tuple[int, int]:
    """Bytes of a run on the card, beside its model."""
    model = FrozenModel(tiny_model(name, **told).float())
    with card() as watch:
        subject = on_card(Subject(model, toy_tokenizer(), single(name).identity))
        made = Stream(subject.frozen, subject.tokenizer, random_corpus(), settings)
        foreseen, before = needs_of(made).total, MEMORY.held
        watch.clear()
        train(made, folder / "run", "run", lambda _: None)
        return foreseen, watch.peak - before


def test_a_run_without_enough_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    require_memory(stream())
    monkeypatch.setattr(needs_module, "free_device_bytes", lambda _: 2**27)
    with pytest.raises(TrainingError, match=r"Training needs about 0\.0 GiB .* 0\.1 GiB are free"):
        require_memory(stream())


def test_the_pool_is_sized_by_its_bytes_the_features_and_the_run():
    plain = TrainSettings(d_dict=4096)
    assert plain.sized(4, 128).shuffled_tokens == 65_536
    assert plain.sized(30, 576).shuffled_tokens == 7 * 2048  # 2 GiB of 138 kB each
    assert replace(plain, d_dict=16_384).sized(30, 576).shuffled_tokens == 32_768
    assert replace(plain, steps=3).sized(4, 128).shuffled_tokens == 3 * 2048
    assert replace(plain, shuffled_tokens=9999).sized(30, 576).shuffled_tokens == 9999
    # 33 batches are two pools of 17 and not of 32, of which one would be filled for one batch.
    assert replace(plain, steps=33).sized(4, 128).shuffled_tokens == 17 * 2048
    assert replace(plain, d_dict=2**17, steps=128).sized(2, 128).shuffled_tokens == 2**18


def test_the_time_of_a_run_grows_with_its_steps():
    short, long = (seconds(stream(replace(SMALL, steps=steps))) for steps in (100, 100_000))
    assert long > 50 * short > 0
    assert seconds(stream(replace(SMALL, steps=1))) > 0


@pytest.mark.parametrize("sparsity", Sparsity)
def test_the_step_that_is_timed_has_the_l0_of_the_run(sparsity: Sparsity):
    settings = replace(SMALL, sparsity=sparsity, d_dict=512, l0=10.0, batch_tokens=256)
    dictionary, batch = random_step(stream(settings))
    inputs, outputs = batch.inputs, batch.outputs
    plan = made_plan(dictionary, dictionary.inputs.apply_to(inputs))
    step = step_loss(dictionary, inputs, outputs, plan, torch.zeros(3, 512), 1.0)
    assert float(step.encoded.l0) == pytest.approx(10, rel=0.3)


def test_long_documents_are_timed_a_pass_at_a_time(monkeypatch: pytest.MonkeyPatch):
    passed: list[int] = []
    monkeypatch.setattr(Stream, "vectors", lambda _, ids: passed.append(ids.numel()))
    corpus = TextCorpus(tuple([1] * 3000 for _ in range(80)))
    seconds(Stream(single().frozen, toy_tokenizer(), corpus, SMALL))
    assert set(passed) == {6000}  # of 8,192


def test_times_are_short_texts():
    times = (0.2, 59.0, 90.0, 3600.0, 12_000.0, 190_000.0)
    texts = [duration(one) for one in times]
    assert texts == ["1 s", "59 s", "2 min", "1 h 0 min", "3 h 20 min", "2 d 4 h"]


def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    for every, expected in ((30.0, ["30 s: loss 3, 3 of 8", "1 min: loss 6, 6 of 8"]), (1e9, [])):
        text = io.StringIO()
        with progress_bar(Console(file=text), every=every) as report:
            for number in range(1, 9):
                report(f"loss {number}", number, 8)
        assert text.getvalue().splitlines() == expected


def test_a_short_run_is_measured_on_few_documents():
    documents = [[1] * 300 for _ in range(50)]
    assert len(some(iter(documents), 0)) == 2  # LEAST_TOKENS of 512
    assert len(some(iter(documents), 3000)) == 10
    assert len(some(iter(documents), 10**9)) == 50


def test_no_more_documents_are_held_out_than_are_measured():
    texts = TextCorpus(tuple([1, *(3 + (n * k) % 20 for k in range(1, 9))] for n in range(2000)))
    whole = held_out(texts, toy_tokenizer(), 50)
    for tokens in (1, 40, 10**6):
        found = held_out(texts, toy_tokenizer(), 50, enough=tokens)
        assert found == whole[: len(found)]
        assert len(found) == min(len(whole), -(-tokens // 9))


def test_a_report_warns_where_most_variance_is_unexplained():
    found = Fidelity(100, (1, 4, 5), (0.2, 3.1, 0.51), (9.0,) * 3, (0.0,) * 3, 0.5, 1.0)
    (warning,) = TrainingReport(found, 0.796, 0.9, 20).warnings
    assert warning.startswith("Layers 4 and 5 leave more than half of the variance unexplained")
    assert "up to 3.10" in warning
    good = replace(found, unexplained=(0.2, 0.4, 0.5))
    assert TrainingReport(good, 0.776, 0.9, 20).warnings == ()
    one = replace(found, unexplained=(0.2, 0.4, 0.6))
    assert TrainingReport(one, None, None, 0).warnings[0].startswith("Layer 5 leaves")
