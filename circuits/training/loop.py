"""The training loop: from batches to a dictionary, with checkpoints to resume from.

All randomness comes from the seed and the position in the run, so a run that was killed and resumed
ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch

from circuits.features.transcoder import Transcoder
from circuits.training import log
from circuits.training.activations import Activations, Stream
from circuits.training.checkpoint import RunState, read_checkpoint, write_checkpoint
from circuits.training.dictionary import TrainedDictionary
from circuits.training.log import LOG, Logged, OnStep
from circuits.training.losses import Step
from circuits.training.settings import CHECKPOINT, TrainingError
from circuits.training.start import started
from circuits.training.step import adam, advance, advance_replaced, schedule
from circuits.training.thresholds import thresholds
from graphs.disk.files import new_folder

SHOWN_EVERY = 10  # steps
LOG_EVERY = 50  # steps


def train(
    stream: Stream,
    folder: Path,
    run: str,
    on_step: OnStep,
    checkpoint_every: int = 1000,
) -> tuple[Transcoder, ...]:
    """Train on a stream; resume from the folder's checkpoint if there is one.

    Every tenth step and the last are shown.  Nothing is written before the first checkpoint, which
    marks the folder as this run's.  Of several processes only the first one writes, and if they
    divide features the others return nothing.

    Raises TrainingError for a checkpoint of another run, if files cannot be written, and if the
    loss is no longer finite; the last checkpoint is then unchanged.
    """
    settings = stream.settings
    torch.manual_seed(settings.seed)
    path = folder / CHECKPOINT
    resumes = bool(stream.processes.everyone.from_first(path.exists()))
    dictionary = _empty(stream) if resumes else _initial(stream)
    optimizer = adam(dictionary)
    state = (
        read_checkpoint(path, run, dictionary, optimizer)
        if resumes
        else RunState.initial(dictionary.encoder_bias.detach())
    )
    first = stream.processes.first
    if first:
        log.truncate(folder / LOG, state.step)
    lines: list[Logged] = []  # pending until the first checkpoint
    for done in _steps(stream, dictionary, optimizer, state):
        last, written = state.step == settings.all_steps, state.step % checkpoint_every == 0
        if not (last or written or state.step % SHOWN_EVERY == 0):
            continue  # without waiting for the device
        _require_finite(state)
        logged = _logged(dictionary, done, state)
        if last or state.step % SHOWN_EVERY == 0:
            on_step(logged)
        if first and (last or state.step % LOG_EVERY == 0):
            lines.append(logged)
        if lines and path.exists():
            log.append(folder / LOG, lines)
        if last or written:
            with new_folder(folder) if first else nullcontext():
                write_checkpoint(path, run, dictionary, optimizer, state)
            if first:
                log.append(folder / LOG, lines)
    optimizer.zero_grad()  # the finished dictionary takes as much
    features = stream.processes.features
    least = features.on_first(thresholds(dictionary, stream, state.document), 1)
    whole = dictionary.on_first()
    return (
        () if whole is None or least is None else whole.folded(least.to(whole.decoder_bias.device))
    )


def _steps(
    stream: Stream,
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    state: RunState,
) -> Iterator[Step]:
    """The steps that are left, each once it is done."""
    settings = stream.settings
    if state.step < settings.steps:
        for batch, document, number in _batches(stream, state):
            done = advance(dictionary, optimizer, batch, state)
            state.document, state.batch = document, number + 1
            yield done
            if state.step == settings.steps:
                break
    if settings.steps == state.step < settings.all_steps:
        # Another loss has gradients of other sizes: by what Adam remembers, its first steps would
        # be several times too long.
        optimizer.state.clear()
    if state.step < settings.all_steps:
        for documents, following in stream.passes(state.document, settings.batch_tokens):
            done = advance_replaced(stream, dictionary, optimizer, documents, state)
            state.document, state.batch = following, 0
            yield done
            if state.step == settings.all_steps:
                break


def _initial(stream: Stream) -> TrainedDictionary:
    """The dictionary before its first step, initialised from the first pool."""
    first = stream.pool(0).activations
    return started(stream.settings, first.inputs, first.outputs, stream.processes)


def _empty(stream: Stream) -> TrainedDictionary:
    """A dictionary for the parameters of a checkpoint."""
    model, processes = stream.frozen, stream.processes
    empty = TrainedDictionary(stream.settings, len(stream.layers), model.d_model, processes)
    return empty.to(model.device)


def _batches(stream: Stream, state: RunState) -> Iterator[tuple[Activations, int, int]]:
    """Batches from the run's position: activations, first document of the pool, number in it.

    Where tokens are divided among processes, of each batch their own.
    """
    tokens = stream.processes.tokens
    size, skipped = stream.settings.batch_tokens, state.batch
    for pool in stream.pools(state.document):
        for number in range(skipped, pool.activations.inputs.shape[1] // size):
            batch = pool.activations.take(slice(number * size, (number + 1) * size), tokens)
            yield batch, pool.first, number
        skipped = 0


def _require_finite(state: RunState) -> None:
    finite = int(state.finite_steps)
    if finite < state.step:
        raise TrainingError(
            f"After {finite} steps the loss or its gradient is no longer finite: choose a "
            "lower learning rate; the last checkpoint is unchanged."
        )


def _logged(dictionary: TrainedDictionary, done: Step, state: RunState) -> Logged:
    processes = dictionary.processes
    share = done.encoded.shares(dictionary.width, processes.tokens)
    assert state.plan is not None
    return Logged(
        step=state.step,
        loss=float(done.loss.detach()),
        l0=float(processes.features.sum(share.sum(1)).mean()),
        explained=1 - float(done.unexplained.mean()),
        dead=float(processes.features.mean(state.plan.dead.float().mean())),
        learning_rate=schedule(dictionary.settings, state.step - 1)[0],
    )
