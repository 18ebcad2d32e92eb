"""Training on several processes: a run ends as one process would end it, up to the order of sums.

All processes make the same pools, batches and plans.  Of `Split` one thing is divided among them:

    tokens    every process has the whole dictionary, and of each batch every n-th token
    features  every process has all tokens, and of each layer every n-th feature with its moments

A loss is written in sums over all processes whose gradient is that of the own addend.  So gradients
of divided features are whole where the features are, those of divided tokens are added up, and what
is neither has the same gradient everywhere.  Parts are equal, so a mean of means is the mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from circuits.model.placement import AUTO, DeviceError
from circuits.training.settings import AnotherFailed, Split, TrainingError

PATIENCE = timedelta(days=1)  # the others wait while the first one reports


@dataclass(frozen=True)
class Group:
    """Processes among which one thing is divided; a process alone has all, and waits for none."""

    rank: int = 0
    size: int = 1

    def part(self, count: int, of: str) -> int:
        """How many of `count` each has.  Raises TrainingError if there are no equal parts."""
        if count % self.size:
            raise TrainingError(
                f"{count:,} {of} cannot be divided equally among {self.size} processes: choose a "
                f"multiple of {self.size}."
            )
        return count // self.size

    def own(self, values: Tensor, axis: int = 0) -> Tensor:
        """Of all along an axis those that are here: every n-th, so that none has only the first."""
        if self.size == 1:
            return values
        return values.movedim(axis, 0)[self.rank :: self.size].movedim(0, axis)

    def n_own(self, count: int) -> int:
        """How many of the first `count` are here."""
        return len(range(self.rank, count, self.size))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, the same on each; its gradient is that of the own addend."""
        return values if self.size == 1 else _Sum.apply(values)  # pyright: ignore[reportReturnType]

    def spread(self, values: Tensor) -> Tensor:
        """Values that all have, given to what each does with its own: gradients are added up."""
        return values if self.size == 1 else _Spread.apply(values)  # pyright: ignore[reportReturnType]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes, with the gradient of the own share."""
        return values if self.size == 1 else self.sum(values) / self.size

    def add_up(self, values: Tensor) -> None:
        """Replace contiguous values by their sum over processes."""
        if self.size > 1:
            with _together():
                dist.all_reduce(values)

    def largest(self, values: Float[Tensor, "row value"], k: int) -> Float[Tensor, "row k"]:
        """The k largest of each row, of which each process has some values."""
        found = self._candidates(values, k)
        return found.topk(min(k, found.shape[1])).values

    def among_largest(
        self, values: Float[Tensor, "row value"], k: int
    ) -> Bool[Tensor, "row value"]:
        """Which of the own values are among the k largest of their row over all processes."""
        if self.size == 1 and values.shape[1] <= k:
            return torch.ones_like(values, dtype=torch.bool)
        found = self._candidates(values, k)
        chosen = torch.zeros_like(found, dtype=torch.bool)
        chosen.scatter_(1, found.topk(min(k, found.shape[1])).indices, value=True)
        width = found.shape[1] // self.size
        return chosen[:, self.rank * width :][:, : values.shape[1]]

    def _candidates(self, values: Tensor, k: int) -> Tensor:
        """The values of all processes side by side, at most k of each, as many of each."""
        if self.size == 1:
            return values
        wide = values.float() if values.dtype == torch.bfloat16 else values
        own = torch.nn.functional.pad(wide, (0, k - values.shape[1]), value=-torch.inf)
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with _together():
            dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, 1)

    def on_first(self, values: Tensor, axis: int | None) -> Tensor | None:
        """All along the axis of which each has its own; None but on the first process."""
        if self.size == 1:
            return values
        if axis is None:
            return values if self.rank == 0 else None
        own = values.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.size)] if self.rank == 0 else None
        with _together():
            dist.gather(own, parts)
        return None if parts is None else torch.stack(parts, axis + 1).flatten(axis, axis + 1)

    def take_from_first(self, values: Tensor) -> Tensor:
        """Replace values by those of the first process, which decides where rounding could."""
        if self.size > 1:
            with _together():
                dist.broadcast(values, 0)
        return values

    def from_first(self, value: int) -> int:
        """A number of the first process."""
        numbers = [value]
        if self.size > 1:
            with _together():
                dist.broadcast_object_list(numbers)
        return numbers[0]

    def agrees(self, value: int) -> bool:
        """Whether all processes have this number."""
        if self.size == 1:
            return True
        found: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(found, value)
        return len(set(found)) == 1


@dataclass(frozen=True)
class Processes:
    """Those of a run; either tokens or features are divided."""

    tokens: Group = Group()
    features: Group = Group()

    @property
    def everyone(self) -> Group:
        """All of them."""
        return self.tokens if self.tokens.size > 1 else self.features

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.everyone.rank == 0

    def whole(self, values: Tensor) -> Tensor:
        """Of a sum over features and mean over tokens that is here, the one over all of them."""
        return self.tokens.mean(self.features.sum(values))


ALONE = Processes()


@contextmanager
def joined(split: Split, device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that torchrun started with this one, and the device that is this one's.

    Where it started none, this process is alone.  All leave together.  If one fails, its error is
    raised; the others raise AnotherFailed, if torchrun has not ended them before.

    Raises TrainingError if the others cannot be found, DeviceError for a device that not each can
    have.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE, device
        return
    store, rank, size = _met()
    group, alone = Group(rank, size), Group()
    try:
        own = own_device(device, int(os.environ.get("LOCAL_RANK", "0")))
        if own != "cpu":
            torch.cuda.set_device(own)
        with _together():
            dist.init_process_group(
                "gloo" if own == "cpu" else "nccl",
                store=PrefixStore("training", store),
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )
        yield Processes(group, alone) if split == Split.TOKENS else Processes(alone, group), own
        with _together():
            dist.barrier()
    except BaseException as error:
        first = _first_to_fail(store)
        if dist.group.WORLD is not None:
            dist.group.WORLD.abort()  # else leaving waits for what another never sends
        if first:
            raise
        raise AnotherFailed("Another process of the run failed before this one.") from error
    finally:
        # Before Python ends: a thread of the group that comes later ends the process by a signal.
        if dist.is_initialized():
            dist.destroy_process_group()


def own_device(name: str, number: int) -> str:
    """The device of the process with this number on its machine.

    Raises DeviceError for what cannot be one device for each.
    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return name
    if name != "cuda":
        raise DeviceError(
            f"Several processes cannot all train on {name!r}: choose cuda, of which each takes "
            "one GPU, auto or cpu."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= count:
        raise DeviceError(
            f"Process {number + 1} of this machine needs a GPU of its own, and torch finds "
            f"{count}: start as many processes as there are GPUs, or choose --device cpu."
        )
    return f"cuda:{number}"


def _met() -> tuple[Any, int, int]:
    """The store that all processes share, the number of this one, and how many there are."""
    try:
        return next(iter(rendezvous("env://", timeout=PATIENCE)))
    except (ValueError, RuntimeError) as error:
        text = str(error).partition("\n")[0].rstrip(".")
        raise TrainingError(
            f"The other processes of the run cannot be reached ({text}): start them with torchrun."
        ) from error


def _first_to_fail(store: Any) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the store went with the process that had it
        return False


@contextmanager
def _together() -> Iterator[None]:
    """Around what all processes do."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "Another process of the run has ended, or cannot be reached any more: the same command "
            "continues from the last checkpoint."
        ) from error


def _total(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    with _together():
        dist.all_reduce(total)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        return _total(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        return grads[0]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        del ctx
        return _total(grads[0])
