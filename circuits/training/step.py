"""One step: the parameters along their gradients, and what the run remembers brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.training.activations import Activations, Stream, padded
from circuits.training.checkpoint import RunState
from circuits.training.dictionary import TrainedDictionary
from circuits.training.encoding import made_plan
from circuits.training.losses import Step, step_loss
from circuits.training.processes import Processes
from circuits.training.replaced import replaced_loss
from circuits.training.settings import Sparsity, TrainSettings

PASS_LOGITS = 2**26  # of a pass of the final phase
NORMALISE_EVERY = 10  # steps; norms move little in between
FREQUENCY_MEMORY = 0.999  # decay per step of the running share of tokens


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
