"""The training loop: from batches to a dictionary, with checkpoints to resume from.

All randomness comes from the seed and the position in the run, so a run that was killed and resumed
ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.features.transcoder import Transcoder
from circuits.training.activations import Activations, Stream
from circuits.training.checkpoint import RunState, read_checkpoint, write_checkpoint
from circuits.training.dictionary import TrainedDictionary
from circuits.training.losses import Step, step_loss
from circuits.training.settings import CHECKPOINT, Sparsity, TrainingError, TrainSettings
from circuits.training.sparsity import kth_largest
from circuits.training.start import started
from graphs.disk.files import atomic_write, file_text, json_value, new_folder, reason

LOG = "log.jsonl"
LOG_EVERY = 50  # steps
NORMALISE_EVERY = 10  # steps; norms move little in between
FREQUENCY_MEMORY = 0.999  # decay per step of the running share of tokens


@dataclass(frozen=True)
class Logged:
    """One line of the log."""

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

    Nothing is written before the first checkpoint, which marks the folder as this run's.  Raises
    TrainingError for a checkpoint of another run, if files cannot be written, and if the loss is no
    longer finite; the last checkpoint is then unchanged.
    """
    settings = stream.settings
    torch.manual_seed(settings.seed)
    path = folder / CHECKPOINT
    dictionary = _empty(stream) if path.exists() else _initial(stream)
    optimizer = torch.optim.Adam(dictionary.parameters(), lr=settings.learning_rate, fused=True)
    if path.exists():
        state = read_checkpoint(path, run, dictionary, optimizer)
    else:
        shape = dictionary.encoder_bias.detach()
        state = RunState(0, 0, 0, torch.zeros_like(shape), torch.zeros_like(shape))
    _truncate_log(folder / LOG, state.step)
    lines: list[Logged] = []  # pending until the first checkpoint
    for batch, document, number in _batches(stream, state):
        if state.step >= settings.steps:
            break
        logged = _step(dictionary, optimizer, settings, batch, state)
        state.step += 1
        state.document, state.batch = document, number + 1
        on_step(logged)
        if state.step % LOG_EVERY == 0 or state.step == settings.steps:
            lines.append(logged)
        if lines and path.exists():
            _append(folder / LOG, lines)
        if state.step % checkpoint_every == 0 or state.step == settings.steps:
            with new_folder(folder):
                write_checkpoint(path, run, dictionary, optimizer, state)
            _append(folder / LOG, lines)
    return dictionary.folded(thresholds(dictionary, stream, state.document))


def _initial(stream: Stream) -> TrainedDictionary:
    """The dictionary before its first step, initialised from the first pool."""
    first = stream.pool(0).activations
    return started(stream.settings, first.inputs, first.outputs)


def _empty(stream: Stream) -> TrainedDictionary:
    """A dictionary for the parameters of a checkpoint."""
    model = stream.frozen
    return TrainedDictionary(stream.settings, model.n_layers, model.d_model).to(model.device)


def _batches(stream: Stream, state: RunState) -> Iterator[tuple[Activations, int, int]]:
    """Batches from the run's position: activations, first document of the pool, number in it."""
    size, skipped = stream.settings.batch_tokens, state.batch
    for pool in stream.pools(state.document):
        for number in range(skipped, pool.activations.inputs.shape[1] // size):
            batch = pool.activations.take(slice(number * size, (number + 1) * size))
            yield batch, pool.first, number
        skipped = 0
        del pool  # free it before the next


def _step(
    dictionary: TrainedDictionary,
    optimizer: torch.optim.Optimizer,
    settings: TrainSettings,
    batch: Activations,
    state: RunState,
) -> Logged:
    rate, penalty_share = schedule(settings, state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    dead = state.silent > settings.dead_after
    step = step_loss(
        dictionary, settings, batch.inputs, batch.outputs, dead, state.frequency, penalty_share
    )
    optimizer.zero_grad()
    step.loss.backward()
    size = torch.nn.utils.clip_grad_norm_(dictionary.parameters(), 1.0)
    if not math.isfinite(float(step.loss.detach()) + float(size)):
        raise TrainingError(
            f"After {state.step} steps the loss or its gradient is no longer finite: choose a "
            "lower learning rate; the last checkpoint is unchanged."
        )
    optimizer.step()
    if settings.sparsity != Sparsity.TANH and state.step % NORMALISE_EVERY == 0:
        dictionary.normalise_decoders()
    share = (step.activations > 0).float().mean(1)
    n_tokens = step.activations.shape[1]
    state.silent = torch.where(share > 0, 0, state.silent + n_tokens)
    state.frequency += (1 - FREQUENCY_MEMORY) * (share - state.frequency)
    return _logged(step, share, dead, rate, state.step + 1)


def _logged(step: Step, share: Tensor, dead: Tensor, rate: float, number: int) -> Logged:
    return Logged(
        step=number,
        loss=float(step.loss.detach()),
        l0=float(share.sum(1).mean()),
        explained=1 - float(step.unexplained.mean()),
        dead=float(dead.float().mean()),
        learning_rate=rate,
    )


def schedule(settings: TrainSettings, step: int) -> tuple[float, float]:
    """Learning rate and weight of the penalties: both warm up; at the end the rate falls to 0."""
    done = step / settings.steps
    rising = min(1.0, (done + 1 / settings.steps) / settings.warm_up) if settings.warm_up else 1.0
    falling = min(1.0, (1 - done) / settings.cool_down) if settings.cool_down else 1.0
    return settings.learning_rate * min(rising, falling), rising


@torch.no_grad()
def thresholds(
    dictionary: TrainedDictionary, stream: Stream, document: int
) -> Float[Tensor, "layer feat"]:
    """Thresholds of the finished dictionary: learned, or those that keep as many as the top k.

    Top k keeps the k largest of a token, or of a batch; one threshold per layer, or one for all,
    keeps as many on average.  It is the mean over the batches of a pool.
    """
    settings, learned = stream.settings, dictionary.log_threshold.exp()
    if settings.sparsity in (Sparsity.JUMP_RELU, Sparsity.TANH):
        return learned
    found: list[Tensor] = []
    inputs = stream.pool(document).activations.inputs
    for batch in inputs.split(settings.batch_tokens, dim=1):
        positive = dictionary.pre_activations(dictionary.inputs.apply_to(batch)).relu()
        together = settings.sparsity == Sparsity.BATCH_TOP_K
        rows = positive.flatten()[None] if together else positive.flatten(1)
        count = max(1, int(settings.l0 / settings.d_dict * rows.shape[1]))
        found.append(torch.stack([kth_largest(row, count) for row in rows]))
    least = torch.stack(found).mean(0).clamp(min=torch.finfo(learned.dtype).tiny)
    return least.expand(len(learned))[:, None].expand_as(learned)


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
