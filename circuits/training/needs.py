"""What a run needs: memory, without which it is refused before it starts, and time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import torch
from scipy.stats import norm

from circuits.machine import free_device_bytes, gigabytes, is_accelerator, wait_for
from circuits.model.frozen import FrozenModel
from circuits.progress import duration
from circuits.training.activations import PASS_TOKENS, Activations, Stream, padded
from circuits.training.checkpoint import RunState
from circuits.training.dictionary import TrainedDictionary, n_written_by
from circuits.training.processes import ALONE, Processes
from circuits.training.settings import Kind, Sparsity, TrainingError, TrainSettings
from circuits.training.start import CALIBRATION_TOKENS, CANDIDATES, example_tokens
from circuits.training.step import adam, advance, rows_together

FLOAT = 4  # bytes
STATES = 4  # of each parameter: its value, its gradient and two moments
PROBED = 64  # documents with which the corpus is timed: those of one block of samples
SPARE = 2**28  # bytes for what is not counted
# Numbers that are held at once, counted on a made-up card (tests/test_training_needs.py).
PRE_ACTIVATIONS = 3  # for each feature and token of a layer
VECTORS = 9  # for each of d_model, of each layer and token of a batch
ENTRIES = 16  # for each active feature of a layer and token
# Where thresholds are learned, features close to them have gradients too.  Source: at first 187 for
# an L0 of 20 (1,024 features per layer of atlas-small), 39 for one of 8 (512).
CLOSE, CLOSE_SHARE = 10, 1 / 16  # times the L0, and of all features
LOGITS = 8  # for each logit of the final phase
HIDDEN = 32  # for each of d_model, of each layer and token of the final phase
ATTENDED = 2  # for each pair of tokens and head of the final phase


@dataclass(frozen=True)
class Needs:
    """Bytes where the model is."""

    pool: int  # activations that are shuffled together
    parameters: int  # with gradients and moments
    temporary: int  # in a step, or while it starts or ends

    @property
    def total(self) -> int:
        """All at once."""
        return self.pool + self.parameters + self.temporary


def needs(
    settings: TrainSettings, n_layers: int, d_model: int, processes: Processes = ALONE
) -> Needs:
    """Memory of a process of a run on so many layers, but for what goes through the model.

    The settings have a number of tokens to shuffle.  Raises TrainingError for a batch or a
    dictionary that cannot be divided among the processes.
    """
    assert settings.shuffled_tokens is not None
    shuffled = settings.shuffled_tokens
    batch = processes.tokens.part(settings.batch_tokens, "tokens of a batch")
    d_dict = processes.features.part(settings.d_dict, "features of a layer")
    written = sum(n_written_by(settings.kind, n_layers))
    matrices = d_dict * d_model * (n_layers + written)
    matrices += n_layers * d_model**2 if settings.kind == Kind.SKIP else 0
    biases = n_layers * (2 * d_dict + d_model)  # thresholds among them
    n_entries = settings.l0  # per token and layer
    if settings.sparsity in (Sparsity.JUMP_RELU, Sparsity.TANH):
        n_entries = min(float(d_dict), max(CLOSE * settings.l0, CLOSE_SHARE * d_dict))
    together = settings.sparsity == Sparsity.BATCH_TOP_K and settings.one_budget

    def encoded(tokens: int) -> int:
        return PRE_ACTIVATIONS * tokens * d_dict * (n_layers if together else 1)

    def in_step(tokens: int, of_token: float = settings.l0) -> int:
        entries = ENTRIES * math.ceil(of_token) * n_layers * tokens
        return encoded(tokens) + VECTORS * n_layers * tokens * d_model + entries

    examples = min(shuffled, example_tokens(settings.d_dict))
    choosing = examples * (4 * d_model + 3 * min(CANDIDATES, d_dict)) + 4 * d_dict * d_model
    # Thresholds of batch-topk are found on whole batches, whatever is divided.
    ending = encoded(settings.batch_tokens) if settings.sparsity == Sparsity.BATCH_TOP_K else 0
    calibrating = in_step(min(shuffled, CALIBRATION_TOKENS))
    return Needs(
        pool=2 * FLOAT * n_layers * shuffled * d_model,
        parameters=STATES * FLOAT * (matrices + biases),
        temporary=FLOAT * max(in_step(batch, n_entries), choosing, calibrating, ending),
    )


def needs_of(stream: Stream) -> Needs:
    """Memory of a process of the run of a stream."""
    frozen, settings, layers = stream.frozen, stream.settings, stream.layers
    found = needs(settings, len(layers), frozen.d_model, stream.processes)
    longest = stream.corpus.length
    assert settings.shuffled_tokens is not None
    passed = min(PASS_TOKENS, settings.shuffled_tokens) + longest
    filling = 2 * len(layers) * frozen.d_model * passed
    replacing = _in_final_phase(frozen, settings, longest) if settings.kl_steps else 0
    return replace(found, temporary=max(found.temporary, FLOAT * max(filling, replacing)))


def _in_final_phase(frozen: FrozenModel, settings: TrainSettings, longest: int) -> int:
    """Numbers of a pass that goes through the model twice, and once backwards."""
    d_vocab, n_heads = len(frozen.unembedding), frozen.blocks[0].n_heads
    together = min(rows_together(longest, d_vocab), -(-settings.batch_tokens // longest))
    tokens = together * longest
    return tokens * (
        LOGITS * d_vocab
        + frozen.n_layers * (HIDDEN * frozen.d_model + ATTENDED * n_heads * longest)
    )


def require_memory(stream: Stream) -> Needs:
    """What the run of a stream needs.  Raises TrainingError if that is not free."""
    processes, device = stream.processes, stream.frozen.device
    found = needs_of(stream)
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
    """Time of the whole run, from that of some documents, of the model on them, and of a step.

    All processes of a run measure together.
    """
    settings, processes = stream.settings, stream.processes
    read, in_model = _of_a_token(stream)
    # In the final phase the model runs twice, and once backwards, which is about as two times.
    # Only before that phase do processes divide what goes through it.
    passed = settings.steps / processes.everyone.size + 4 * settings.kl_steps
    in_step = _of_a_step(stream)
    in_batch = read * settings.batch_tokens + in_step
    return in_model * settings.batch_tokens * passed + in_batch * settings.all_steps


def _of_a_token(stream: Stream) -> tuple[float, float]:
    """Seconds in which the corpus gives a token, and in which it goes through the model."""
    device = stream.frozen.device
    start = time.perf_counter()
    documents = list(islice(stream.corpus.documents(0), PROBED))
    read = (time.perf_counter() - start) / max(1, sum(map(len, documents)))
    some = documents[: max(1, PASS_TOKENS // max(map(len, documents)))]
    ids, counted = padded(some, stream.tokenizer, device, stream.n_prefix)
    in_model = _second_time(lambda: stream.vectors(ids), device)
    return read, in_model / max(1, int(counted.sum()))


def _of_a_step(stream: Stream) -> float:
    """Seconds of a step on random vectors, with about as many active features as it will have."""
    dictionary, batch = random_step(stream)
    optimizer, state = adam(dictionary), RunState.initial(dictionary.encoder_bias.detach())
    device = stream.frozen.device
    return _second_time(lambda: advance(dictionary, optimizer, batch, state), device)


def random_step(stream: Stream) -> tuple[TrainedDictionary, Activations]:
    """A dictionary and a batch of random numbers, with the L0 that is asked for."""
    settings, frozen, processes = stream.settings, stream.frozen, stream.processes
    own = processes.tokens.part(settings.batch_tokens, "tokens of a batch")
    shape = (len(stream.layers), own, frozen.d_model)
    vectors = torch.randn(shape, device=frozen.device)
    # So that no step is of the final phase.
    longer = replace(settings, steps=settings.steps + 2)
    dictionary = TrainedDictionary(longer, shape[0], frozen.d_model, processes).to(frozen.device)
    share = min(settings.l0 / settings.d_dict, 0.4)
    with torch.no_grad():
        for parameter in dictionary.parameters():
            parameter.normal_()
        # Pre-activations are sums of d_model products of normal numbers, and of a bias.
        spread = math.sqrt(frozen.d_model + 1)
        dictionary.log_threshold.fill_(math.log(spread * norm.isf(share)))
    return dictionary, Activations(vectors, vectors.flip(1))


def _second_time(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second of two calls: the first one allocates."""
    run()
    wait_for(device)
    start = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - start
