"""Queries and keys of one layer as functions of the residual that enters its attention.

The model's own attention module is run, so that projections, rotations and norms of queries and
keys are as the architecture has them; norms are held at their recorded denominators, or run.  With
them held, queries and keys are affine in the residual, and gradients of a score are its covectors:

    score = scaling · query[q] · key[k]
    covector at the query  = scaling · (d query[q] / d residual)ᵀ · key[k]      and the same at keys
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from torch.utils import _pytree as pytree

from circuits.machine import on_device
from circuits.model.frozen import FrozenModel, Norm
from circuits.recording.meeting import OWN, Meeting, Unrounded, register
from circuits.recording.record import (
    Hooks,
    Recording,
    attention_through,
    entering_attention,
    exact_norm,
)


@contextmanager
def _differentiable() -> Iterator[None]:
    """Within the block gradients are computed, whatever holds outside."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Covector(NamedTuple):
    """A number as an affine function of a residual."""

    covector: Float[Tensor, "pos d_model"]
    constant: float


class _Passed(NamedTuple):
    """The attention module run on a residual."""

    residual: Float[Tensor, "pos d_model"]
    meeting: Meeting


class LayerMeeting:
    """One layer's queries and keys on a prompt."""

    @_differentiable()
    def __init__(self, frozen: FrozenModel, recording: Recording, layer: int) -> None:
        self.frozen, self.block = frozen, frozen.blocks[layer]
        recorded = recording.blocks[layer]
        # Copies, since what was recorded in inference mode takes no part in a gradient.
        self.residual = entering_attention(frozen, recording, layer).clone()
        self.denominator = recorded.attention_denominator.clone()
        self.given = pytree.tree_map(_copy, recorded.attention_given)
        self.inner: list[Tensor] = []  # denominators of the norms of queries and keys
        with torch.no_grad():
            self.recorded = self._pass(self.residual, self._see).meeting

    @_differentiable()
    def at_query(
        self, head: int, query: int, weights: Float[ndarray, " key"], *, running: bool = False
    ) -> Covector:
        """Σ_k weights[k] · score[query, k] as a function of the residual at the query."""
        keys = self.recorded.key[0, self._kv(head)]
        toward = self.recorded.scaling * (self._on_device(weights) @ keys)

        def read(meeting: Meeting) -> Tensor:
            return meeting.query[0, head, query] @ toward

        return self._covector(read, running=running)

    @_differentiable()
    def at_keys(
        self, head: int, query: int, weights: Float[ndarray, " key"], *, running: bool = False
    ) -> Covector:
        """The same as a function of the residual at the keys."""
        toward = self.recorded.scaling * self.recorded.query[0, head, query]

        def read(meeting: Meeting) -> Tensor:
            return self._on_device(weights) @ (meeting.key[0, self._kv(head)] @ toward)

        return self._covector(read, running=running)

    def running(self, residual: Float[Tensor, "pos d_model"]) -> Meeting:
        """What meets if another residual enters, with all norms running."""
        with torch.no_grad():
            return self._pass(residual, self._run, norm_runs=True).meeting

    @_differentiable()
    def projection(
        self, head: int, pos: int, *, of: Literal["query", "key"]
    ) -> tuple[Float[Tensor, "d_head d_model"], Float[Tensor, " d_head"]]:
        """A query or key as an affine function of the residual at its position."""
        number = head if of == "query" else self._kv(head)
        own = self.residual[pos].clone().requires_grad_()
        at = torch.tensor([pos], device=own.device)
        passed = self._pass(self.residual.index_put((at,), own[None]), self._hold)
        found = getattr(passed.meeting, of)[0, number, pos]
        each = torch.eye(len(found), dtype=found.dtype, device=found.device)
        (matrix,) = torch.autograd.grad(found, own, each, is_grads_batched=True)
        return matrix, getattr(self._at_zero, of)[0, number, pos]

    @_differentiable()
    def slopes(
        self,
        head: int,
        query: int,
        at_query: Float[Tensor, "pos d_model"],
        at_keys: Float[Tensor, "pos d_model"],
        *,
        norm_runs: bool,
    ) -> Float[Tensor, " key"]:
        """First-order changes of a query's capped scores where residuals change.

        Norms of queries and keys run; `norm_runs`: the one in front of attention does too.
        """
        ends = [self.residual.clone().requires_grad_() for _ in range(2)]
        asks, offers = (self._pass(end, self._run, norm_runs=norm_runs).meeting for end in ends)
        scores = offers.key[0, self._kv(head)] @ asks.query[0, head, query] * asks.scaling
        scores = asks.capped(scores)
        # The derivative along a change, as that of the gradient's product with it.
        weights = torch.zeros_like(scores, requires_grad=True)
        covectors = torch.autograd.grad(scores, ends, weights, create_graph=True)
        changes = at_query.clone(), at_keys.clone()
        along = [(one * to).sum() for one, to in zip(covectors, changes, strict=True)]
        (found,) = torch.autograd.grad(along[0] + along[1], weights)
        return found

    def _covector(self, read: Callable[[Meeting], Tensor], *, running: bool) -> Covector:
        passed = self._running if running else self._held
        value = read(passed.meeting)
        (covector,) = torch.autograd.grad(value, passed.residual, retain_graph=True)
        return Covector(covector, float(read(self._at_zero)))

    @cached_property
    def _held(self) -> _Passed:
        return self._pass(self.residual.clone().requires_grad_(), self._hold)

    @cached_property
    def _running(self) -> _Passed:
        return self._pass(self.residual.clone().requires_grad_(), self._run, norm_runs=True)

    @cached_property
    def _at_zero(self) -> Meeting:
        with torch.no_grad():
            return self._pass(torch.zeros_like(self.residual), self._hold).meeting

    def _pass(
        self,
        residual: Float[Tensor, "pos d_model"],
        inner: Callable[..., Any],
        *,
        norm_runs: bool = False,
    ) -> _Passed:
        """What meets, given the residual; `inner` is called behind norms of queries and keys."""
        norm, met = self.block.attention_norm, list[Meeting]()
        denominator = norm.denominator(residual) if norm_runs else self.denominator
        given = norm.linear(residual, denominator) + norm.bias
        register()
        with attention_through(self.frozen, OWN), Unrounded(), Hooks() as hooks:
            for number, (module, own) in enumerate(self.block.inner_norms):
                hooks.after(module, partial(inner, number, own))
            self.block.modules.attention(given[None], meetings=met, **self.given)
        return _Passed(residual, met[0])

    def _see(self, number: int, norm: Norm, given: Tensor, output: Tensor) -> Tensor | None:
        """Keep what a norm divides by."""
        assert len(self.inner) == number
        self.inner.append(norm.denominator(given))
        return self._run(number, norm, given, output)

    def _hold(self, number: int, norm: Norm, given: Tensor, output: Tensor) -> Tensor:
        return (norm.linear(given, self.inner[number]) + norm.bias).to(output)

    def _run(self, number: int, norm: Norm, given: Tensor, output: Tensor) -> Tensor | None:
        del number
        return exact_norm(norm, given, output) if given.dtype == torch.float64 else None

    def _kv(self, head: int) -> int:
        return head // (self.block.n_heads // self.block.n_kv_heads)

    def _on_device(self, weights: Float[ndarray, " key"]) -> Float[Tensor, " key"]:
        return on_device(weights, self.residual.device, self.residual.dtype)


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
