"""The machine: its cores, its memory, and elementary functions that need a first call.

Independent blocks go to all cores, one block per core: between its matrix products a block has
small steps that only one core can run, and its data stays in the cache of its core.  On two cores,
sweeping and thinning rows for 128 tokens took 16.5 s this way and 20.3 s with both cores on every
block.

Of memory only what has no file behind it counts: the system can reclaim mapped weights and page
cache.

torch computes elementary functions of CPU tensors with MKL, a part of the tensor in each thread.
MKL selects the code of a function at its first call, and a thread that calls it meanwhile may
compute its part, that once, with less accurate code.  On a busy machine half the cosines of the
rotary embedding were wrong by 6e-5 in one trace out of twenty, and its graph by 1e-4.  So one
thread calls each function once before several do.
Source: github.com/pytorch/pytorch/issues/188792.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from numpy import ndarray
from torch import Tensor

MOST_WORKING, LEAST_WORKING = 6 * 2**30, 2**26  # bytes for temporary values on an accelerator
WITHOUT_FLOAT64 = {"mps"}  # types of devices
MOST_WORKERS = 8  # blocks in memory at once; more cores than that share a block
Block = TypeVar("Block")
Result = TypeVar("Result")


def is_accelerator(device: torch.device) -> bool:
    """Whether tensors are elsewhere than on the host, which then had better not ask for them."""
    return device.type != "cpu"


def workers_for(device: torch.device) -> int:
    """How many blocks run at once; one on devices other than the CPU."""
    return 1 if is_accelerator(device) else min(MOST_WORKERS, torch.get_num_threads())


def each_block(
    work: Callable[[Block], Result], blocks: list[Block], device: torch.device
) -> Iterator[Result]:
    """`work` of every block, in order; blocks run in parallel, so `work` must not share state."""
    workers = min(workers_for(device), len(blocks))
    if workers <= 1:
        yield from map(work, blocks)
        return
    threads = torch.get_num_threads()

    def run(block: Block) -> Result:
        with torch.inference_mode():  # set per thread
            return work(block)

    share = threads // workers
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
        try:
            yield from pool.map(run, blocks)
        finally:
            torch.set_num_threads(threads)  # new threads start with the number last set anywhere


@contextmanager
def float32_products(*, tensor_cores: bool) -> Iterator[None]:
    """Within the block CUDA makes float32 products in float32, or in TF32."""
    settings = torch.backends.cuda.matmul
    before, settings.fp32_precision = settings.fp32_precision, "tf32" if tensor_cores else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before


@contextmanager
def exactly() -> Iterator[None]:
    """Within the block numbers are computed without gradients, and float32 products in float32.

    What the program around has set for tensor cores does not matter.
    """
    with torch.inference_mode(), float32_products(tensor_cores=False):
        yield


def on_device(values: ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """An array on a device; the host does not wait for the copy.

    `dtype`: of the tensor, if not the array's; it is converted on the host, since not every device
    has the type of the array.
    """
    own = torch.from_numpy(values)
    return own.to(dtype or own.dtype).to(device, non_blocking=True)


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The same on a device, itself if it is there; the host waits for what comes to it alone."""
    return values.to(device, non_blocking=is_accelerator(device))


def gathered(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """All of these on a device, one after the other; neighbours that lie together in one copy."""
    runs = [list(run) for _, run in groupby(parts, key=lambda part: part.device)]
    found = [moved(run[0] if len(run) == 1 else torch.cat(run), device) for run in runs]
    return found[0] if len(found) == 1 else torch.cat(found)


def exact(values: Tensor) -> Tensor:
    """Numbers in the precision in which they are kept: float64, or float32 for any other."""
    return values if values.dtype == torch.float64 else values.float()


def beside(values: Tensor, like: Tensor) -> Tensor:
    """Numbers in another tensor's type and on its device, for whose copy the host does not wait.

    What lies in a file passes through pinned memory, from which a GPU copies while the host reads
    the next.
    """
    if like.device.type == "cuda" and not is_accelerator(values.device):
        pinned = host_buffer(values.numel(), values.dtype, like.device)
        values = pinned.view_as(values).copy_(values)
    return moved(values, like.device).to(like.dtype)


def widest(values: Tensor) -> torch.dtype:
    """The type in which a device sums: float64, or float32 where there is no float64."""
    return torch.float32 if values.device.type in WITHOUT_FLOAT64 else torch.float64


def in_float64(values: Tensor) -> Tensor:
    """Numbers on the host in float64, which not every accelerator has."""
    return exact(values).cpu().double()


def as_array(values: Tensor) -> ndarray:
    """A tensor as an array; from a GPU through pinned memory, to which it copies much faster."""
    if values.device.type != "cuda":
        return values.cpu().numpy()
    pinned = host_buffer(values.numel(), values.dtype, values.device)
    return pinned.view_as(values).copy_(values).numpy()


def host_buffer(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of the host to which a device copies without the host waiting, until `wait_for`."""
    return torch.empty(size, dtype=dtype, pin_memory=device.type == "cuda")


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type in ("cuda", "mps"):
        torch.accelerator.synchronize(device)


def on_host(*columns: Tensor) -> tuple[ndarray, ...]:
    """Columns of one length and type as arrays, by one copy."""
    return tuple(as_array(torch.stack(columns)))


CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container's own limit, where there is one (Linux)


def held_bytes() -> int:
    """Memory of this process that is not backed by files."""
    memory = psutil.Process().memory_info()
    return memory.rss - getattr(memory, "shared", 0)


def free_bytes(most: int | None = None) -> int:
    """Memory that this process can still allocate, or still may if it must not hold more."""
    available = psutil.virtual_memory().available
    limited = _free_in_control_group(CONTROL_GROUP)
    free = available if limited is None else min(available, limited)
    return free if most is None else max(0, min(free, most - held_bytes()))


def free_device_bytes(device: torch.device, most: int | None = None) -> int:
    """The same of an accelerator's memory; for the CPU, of main memory."""
    if device.type != "cuda":
        return free_bytes(most)
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_allocated(device)
    free += torch.cuda.memory_reserved(device) - held
    return free if most is None else max(0, min(free, most - held))


class WorkingMemory:
    """Bytes for temporary values on an accelerator; halved where they turn out to be too many."""

    def __init__(self, device: torch.device, free: int) -> None:
        self.device, self.size = device, 0
        self.within(free)

    def within(self, free: int) -> None:
        """Take what is free, up to MOST_WORKING."""
        self.size = min(MOST_WORKING, max(LEAST_WORKING, free))

    def halve(self) -> bool:
        """Take half from now on, and say so; False if there is too little left to halve."""
        if self.size <= LEAST_WORKING:
            return False
        self.size = max(LEAST_WORKING, self.size // 2)
        logging.getLogger("headwater").warning(
            "Out of memory on %s: rows are now swept in groups of at most %s.",
            self.device,
            gigabytes(self.size),
        )
        return True


def _free_in_control_group(group: Path) -> int | None:
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        current = int((group / "memory.current").read_text())
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - current + int(counted["inactive_file"]) + int(counted["active_file"])
    except (OSError, ValueError, KeyError):
        return None


def gigabytes(count: int | float) -> str:
    """A number of bytes as text."""
    return f"{count / 2**30:.1f} GiB"


IN_MKL = (
    torch.acos,
    torch.asin,
    torch.atan,
    torch.cos,
    torch.erf,
    torch.erfc,
    torch.erfinv,
    torch.exp,
    torch.log,
    torch.log10,
    torch.log2,
    torch.sin,
    torch.sqrt,
    torch.tan,
    torch.tanh,
    torch.trunc,
)


@cache
def warm_up_mkl() -> None:
    """Call every function once in float32 and in float64, so that MKL selects its code."""
    for dtype in (torch.float32, torch.float64):
        for function in IN_MKL:
            function(torch.full((1,), 0.5, dtype=dtype))
