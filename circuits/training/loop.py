"""The training loop: from batches to a dictionary, with checkpoints to resume from.

All randomness comes from the seed and the position in the run, so a run that was killed and resumed
ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.features.transcoder import Transcoder
from circuits.largest import largest
from circuits.training.activations import Activations, Stream, padded
from circuits.training.checkpoint import RunState, read_checkpoint, write_checkpoint
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import made_plan
from circuits.training.losses import Step, step_loss
from circuits.training.processes import Group, Processes
from circuits.training.replaced import replaced_loss
from circuits.training.settings import CHECKPOINT, Sparsity, TrainingError, TrainSettings
from circuits.training.start import started
from graphs.disk.files import atomic_write, file_text, json_value, new_folder, reason

LOG = "log.jsonl"
SHOWN_EVERY = 10  # steps
LOG_EVERY = 50  # steps
PASS_LOGITS = 2**26  # of a pass of the final phase
NORMALISE_EVERY = 10  # steps; norms move little in between
FREQUENCY_MEMORY = 0.999  # decay per step of the running share of tokens


@dataclass(frozen=True)
class Logged:
    """What is shown of a step."""

    step: int
    loss: float
    l0: float  # active features per layer and token
    explained: float  # variance, mean over layers
    dead: float  # share of all features
    learning_rate: float


OnStep = Callable[[Logged], None]


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
        _truncate_log(folder / LOG, state.step)
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
            _append(folder / LOG, lines)
        if last or written:
            with new_folder(folder) if first else nullcontext():
                write_checkpoint(path, run, dictionary, optimizer, state)
            if first:
                _append(folder / LOG, lines)
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
    if state.step == settings.steps:
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


def adam(dictionary: TrainedDictionary) -> torch.optim.Optimizer:
    """The optimizer of a run, whose rate every step sets."""
    rate = dictionary.settings.learning_rate
    return torch.optim.Adam(dictionary.parameters(), lr=rate, fused=True)


def advance(
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    batch: Activations,
    state: RunState,
) -> Step:
    """One step of the parameters and the state, without waiting for the device."""
    settings = dictionary.settings
    rate, penalty_share = schedule(settings, state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if state.plan is None or state.step % settings.refresh == 0:
        read = dictionary.inputs.apply_to(batch.inputs)
        state.plan = made_plan(dictionary, read, state.silent > settings.silent_tokens)
    step = step_loss(
        dictionary, batch.inputs, batch.outputs, state.plan, state.frequency, penalty_share
    )
    optimizer.zero_grad()
    step.loss.backward()
    _descend(dictionary, optimizer, step.loss.detach(), state)
    tokens = dictionary.processes.tokens
    share = step.encoded.shares(dictionary.width, tokens)
    n_tokens = batch.inputs.shape[1] * tokens.size
    state.silent = torch.where(share > 0, 0, state.silent + n_tokens)
    state.frequency += (1 - FREQUENCY_MEMORY) * (share - state.frequency)
    state.step += 1
    return step


def advance_replaced(
    stream: Stream,
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    documents: list[list[int]],
    state: RunState,
) -> Step:
    """One step of the final phase on some documents."""
    settings, frozen = stream.settings, stream.frozen
    for group in optimizer.param_groups:
        group["lr"] = schedule(settings, state.step)[0]
    assert state.plan is not None
    optimizer.zero_grad()
    ids, counted = padded(documents, stream.tokenizer, frozen.device, stream.n_prefix)
    n_rows = rows_together(ids.shape[1], len(frozen.unembedding))
    parts = list(zip(ids.split(n_rows), counted.split(n_rows), strict=True))
    loss, done = state.silent.new_zeros(()), None
    n_parts = dictionary.processes.tokens.size
    with _with_all_tokens(dictionary):
        for part, places in parts:
            done = replaced_loss(dictionary, frozen, stream.layers, part, places, state.plan)
            share = places.sum() / counted.sum()
            (done.loss * share / n_parts).backward()
            loss += done.loss.detach() * share
    assert done is not None
    _descend(dictionary, optimizer, loss, state)
    state.step += 1
    return replace(done, loss=loss)


def rows_together(longest: int, d_vocab: int) -> int:
    """Documents of this length that go through the model together in the final phase."""
    return max(1, PASS_LOGITS // (longest * d_vocab))


@contextmanager
def _with_all_tokens(dictionary: TrainedDictionary) -> Iterator[None]:
    """Within the block each process takes all tokens.

    Where they are divided otherwise, its gradient is the same as that of the others, and it gives a
    share.
    """
    processes = dictionary.processes
    dictionary.processes = Processes(features=processes.features)
    try:
        yield
    finally:
        dictionary.processes = processes


def _descend(
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    loss: Float[Tensor, ""],
    state: RunState,
) -> None:
    """Move the parameters along their gradients.

    The optimizer divides by a norm above 1 in its own pass over them, as in mixed precision.
    """
    size = dictionary.gradient_norm()
    optimizer.grad_scale = (size + 1e-6).clamp(min=1.0).float()  # pyright: ignore[reportAttributeAccessIssue]  # Adam looks for it
    good = torch.isfinite(loss + size)
    state.finite_steps = state.finite_steps + good * (state.finite_steps == state.step)
    optimizer.step()
    if dictionary.settings.sparsity != Sparsity.TANH and state.step % NORMALISE_EVERY == 0:
        dictionary.normalise_decoders()


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


def schedule(settings: TrainSettings, step: int) -> tuple[float, float]:
    """Learning rate and weight of the penalties: both warm up; at the end the rate falls to 0.

    In the final phase it falls from a share of the rate to 0.
    """
    if step >= settings.steps:
        left = 1 - (step - settings.steps) / settings.kl_steps
        return settings.learning_rate * settings.kl_rate * left, 1.0
    done = step / settings.steps
    rising = min(1.0, (done + 1 / settings.steps) / settings.warm_up) if settings.warm_up else 1.0
    falling = min(1.0, (1 - done) / settings.cool_down) if settings.cool_down else 1.0
    return settings.learning_rate * min(rising, falling), rising


@torch.no_grad()
def thresholds(
    dictionary: TrainedDictionary, stream: Stream, document: int
) -> Float[Tensor, "layer feat"]:
    """Thresholds of the finished dictionary: learned, or those that keep as many as batch-topk.

    One threshold per layer, or one for all if they share a budget, keeps as many on average.  It
    is the mean over the batches of a pool.
    """
    settings, learned = stream.settings, dictionary.log_threshold.exp()
    if settings.sparsity != Sparsity.BATCH_TOP_K:
        return learned
    found: list[Tensor] = []
    inputs = stream.pool(document).activations.inputs
    for batch in inputs.split(settings.batch_tokens, dim=1):
        read = dictionary.inputs.apply_to(batch)
        # One layer after another, unless all are needed at once.
        rows = (dictionary.pre_activations(*one, exact=True).flatten() for one in enumerate(read))
        rows = iter([torch.cat([*rows])]) if settings.one_budget else rows
        features = dictionary.processes.features
        found.append(torch.stack([_least_kept(row, settings, features) for row in rows]))
    least = torch.stack(found).mean(0).clamp(min=torch.finfo(learned.dtype).tiny)
    return least.expand(len(learned))[:, None].expand_as(learned)


def _least_kept(
    values: Float[Tensor, " value"], settings: TrainSettings, features: Group
) -> Float[Tensor, ""]:
    count = max(1, int(settings.l0 / settings.d_dict * len(values) * features.size))
    own = values[largest(values[None], min(count, len(values)))[0]]
    return features.largest(own[None], count).min()


def _append(path: Path, lines: list[Logged]) -> None:
    """Append lines to the log, and clear the list."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(asdict(logged)) + "\n" for logged in lines)
    except OSError as error:
        raise TrainingError(f"Cannot write {path}: {reason(error)}.") from error
    lines.clear()


def _truncate_log(path: Path, step: int) -> None:
    """Drop lines of steps that will be repeated, and damaged lines.

    Raises GraphFileError if the log cannot be read or written.
    """
    if not path.exists():
        return
    lines = file_text(path).decode("utf-8", "replace").splitlines()
    kept = [line for line in lines if 0 < _step_of(line) <= step]
    with atomic_write(path) as temporary:
        text = "".join(f"{line}\n" for line in kept)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _step_of(line: str) -> int:
    """The step of a log line, 0 for a damaged one."""
    try:
        return int(json_value(line.encode())["step"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0
