"""What a run needs: memory, without which it is refused before it starts, and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import torch

from circuits.machine import free_device_bytes, gigabytes, is_accelerator, wait_for
from circuits.progress import duration
from circuits.training.activations import Activations, Stream, mlp_vectors, padded
from circuits.training.checkpoint import RunState
from circuits.training.dictionary import TrainedDictionary, n_written_by
from circuits.training.loop import adam, advance
from circuits.training.processes import ALONE, Processes
from circuits.training.settings import Kind, Sparsity, TrainingError, TrainSettings
from circuits.training.start import EXAMPLE_TOKENS

FLOAT = 4  # bytes
STATES = 4  # of each parameter: its value, its gradient and two moments
PROBED = 64  # documents with which corpus and model are timed: those of one block of samples
SPARE = 2**28  # bytes for what is not counted


@dataclass(frozen=True)
class Needs:
    """Bytes where the model is."""

    pool: int  # activations that are shuffled together
    parameters: int  # with gradients and moments
    temporary: int  # in a step, or while it starts

    @property
    def total(self) -> int:
        """All at once."""
        return self.pool + self.parameters + self.temporary


def needs(
    settings: TrainSettings, n_layers: int, d_model: int, processes: Processes = ALONE
) -> Needs:
    """Memory of a process of a run on so many layers; its settings have a number to shuffle.

    Raises TrainingError for a batch or a dictionary that cannot be divided among the processes.
    """
    assert settings.shuffled_tokens is not None
    shuffled = settings.shuffled_tokens
    batch = processes.tokens.part(settings.batch_tokens, "tokens of a batch")
    d_dict = processes.features.part(settings.d_dict, "features of a layer")
    written = sum(n_written_by(settings.kind, n_layers))
    matrices = d_dict * d_model * (n_layers + written)
    matrices += n_layers * d_model**2 if settings.kind == Kind.SKIP else 0
    biases = n_layers * (2 * d_dict + d_model)  # thresholds among them
    together = settings.sparsity == Sparsity.BATCH_TOP_K and settings.one_budget
    encoded = 3 * batch * d_dict * (n_layers if together else 1)
    vectors = 8 * n_layers * batch * d_model
    starting = 3 * n_layers * min(shuffled, EXAMPLE_TOKENS) * d_model
    return Needs(
        pool=2 * FLOAT * n_layers * shuffled * d_model,
        parameters=STATES * FLOAT * (matrices + biases),
        temporary=FLOAT * max(encoded + vectors, starting),
    )


def require_memory(stream: Stream) -> Needs:
    """What the run of a stream needs.  Raises TrainingError if that is not free."""
    processes, device = stream.processes, stream.frozen.device
    found = needs(stream.settings, len(stream.layers), stream.frozen.d_model, processes)
    free = free_device_bytes(device)
    if not is_accelerator(device):
        free //= processes.everyone.size  # as if all were on this machine
    if found.total + SPARE > free:
        each = "" if processes.everyone.size == 1 else " in each process"
        raise TrainingError(
            f"Training needs about {gigabytes(found.total)}{each} (parameters "
            f"{gigabytes(found.parameters)}, shuffled activations {gigabytes(found.pool)}, "
            f"temporary values {gigabytes(found.temporary)}), and {gigabytes(free)} are free: "
            "choose a smaller --width, --shuffle or --batch, or some of the layers with --layers."
        )
    return found


def foreseen(stream: Stream) -> str:
    """What a run will take, as a sentence.  Raises TrainingError if it lacks memory."""
    needed, settings, size = require_memory(stream), stream.settings, stream.processes.everyone.size
    each = "" if size == 1 else f" for each of {size} processes,"
    return (
        f"About {gigabytes(needed.total)}{each} and {duration(seconds(stream))} in all: "
        f"{settings.all_steps * settings.batch_tokens:,} tokens in {settings.all_steps:,} steps."
    )


def seconds(stream: Stream) -> float:
    """Time of the whole run: that of some documents, of the model on them, and of a step.

    All processes of a run measure together.
    """
    settings, frozen, processes = stream.settings, stream.frozen, stream.processes
    start = time.perf_counter()
    documents = list(islice(stream.corpus.documents(0), PROBED))
    read = (time.perf_counter() - start) / max(1, sum(map(len, documents)))
    ids, counted = padded(documents, stream.tokenizer, frozen.device, stream.n_prefix)
    points = settings.read, settings.write, stream.layers
    in_model = _second_time(lambda: mlp_vectors(frozen, ids, *points), frozen.device)
    own = processes.tokens.part(settings.batch_tokens, "tokens of a batch")
    shape = (len(stream.layers), own, frozen.d_model)
    vectors = torch.randn(shape, device=frozen.device)
    batch = Activations(vectors, vectors.flip(1))
    # So that neither step is of the final phase.
    longer = replace(settings, steps=settings.steps + 2)
    dictionary = TrainedDictionary(longer, shape[0], frozen.d_model, processes).to(frozen.device)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.normal_()
    optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
    in_step = _second_time(lambda: advance(dictionary, optimizer, batch, state), frozen.device)
    in_model /= max(1, int(counted.sum()))
    # In the final phase the model runs twice, and once backwards, which is about as two times.
    # Only before that phase do processes divide what goes through it.
    steps = settings.steps / processes.everyone.size + 4 * settings.kl_steps
    tokens = settings.batch_tokens * steps
    return in_model * tokens + (read * settings.batch_tokens + in_step) * settings.all_steps


def _second_time(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two calls: the first one allocates."""
    run()
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start
