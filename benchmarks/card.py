"""A card: an accelerator that is only made up, and that treats its host as a real one does.

Its tensors say that they are on the device `card`, and hold CPU tensors on which every operation is
run.  So whole traces run on it, with the numbers of the CPU, and what a GPU punishes is seen on any
machine.  There are as many cards as are asked for, by number, with one memory together:

    mixed devices   an operation on tensors of the card and of the host, or of two cards, raises,
                    and so does a random draw by a generator of another device
    float64         refused by a card without it (Apple's MPS has none)
    memory          what is held at most; where it ends, torch.OutOfMemoryError
    launches        operations that move or compute numbers: composite ones count for their parts
    waits           of the host for the card: numbers, sizes that depend on data, copies that block
    copied          bytes to the card and from it
    crossed         copies from device to device, by the two, and their bytes
    seconds         a roofline: each launch takes the longest of LAUNCH, its bytes at BANDWIDTH and
                    its FLOPs at RATE; what a real card adds to that is not known here

torch's dispatcher gives every operation to `Watch` before it runs.
"""

from __future__ import annotations

import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from generators import generators_of_cards, require_generator_of
from kernels import Kernel, Kernels
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._foreach_utils import (
    _foreach_supported_types,  # pyright: ignore[reportPrivateUsage]
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import (
    _setup_privateuseone_for_python_backend,  # pyright: ignore[reportPrivateUsage]
)

from circuits.model.frozen import FrozenModel
from circuits.model.subject import Subject

NAME = "card"
_setup_privateuseone_for_python_backend(NAME)
CARD, SECOND = torch.device(NAME, 0), torch.device(NAME, 1)
HOST = torch.device("cpu")

# Operations that launch nothing: they only describe memory, or reserve it.
FREE = {
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty",
    "empty_like", "empty_strided", "expand", "lift_fresh", "new_empty", "new_empty_strided",
    "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose",
    "unbind", "unfold", "unsqueeze", "view",
}  # fmt: skip
# Operations whose result, or its size, the host needs before it can go on.
WAITING = {
    "_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero", "masked_select",
    "nonzero", "unique_consecutive", "unique_dim",
}  # fmt: skip
COPIES = {"_to_copy", "copy_"}
# Operations that touch only those rows of their first tensor that others name.
INDEXED = {
    "_index_put_impl_", "embedding", "gather", "index", "index_add_", "index_copy_", "index_put_",
    "index_select", "scatter_add_",
}  # fmt: skip
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm"}
PASSES = {"sort": 4, "topk": 4}  # of a radix sort over its data

# Of an H100-class card: seconds of a launch and of a wait, bytes and FLOPs (float32) per second.
# Source: measurements on an H200, of which 51 TFLOP/s and 4.0 TB/s are never quite reached.
LAUNCH, WAIT = 6e-6, 25e-6
BANDWIDTH, RATE = 3e12, 4e13
# FLOPs per second of products in tensor cores, of sizes as in a sweep.  Source: the same.
TF32_RATE, BFLOAT16_RATE = 1.7e14, 2.3e14
RATES = MappingProxyType({torch.float32: RATE, torch.bfloat16: BFLOAT16_RATE})


class _Memory:
    """What tensors of the card hold, each piece of memory counted once."""

    def __init__(self) -> None:
        self.held, self.peak = 0, 0
        self.most: int | None = None  # bytes of the card
        self.users: Counter[int] = Counter()  # tensors by the address of their memory

    def take(self, tensor: OnCard) -> None:
        """Count a new tensor.  Raises torch.OutOfMemoryError if the card does not hold it."""
        memory = tensor.held.untyped_storage()
        address, size = memory._cdata, memory.nbytes()
        if not self.users[address] and self.most is not None and self.held + size > self.most:
            raise torch.OutOfMemoryError(f"{size} bytes more than the card's {self.most}")
        self.held += 0 if self.users[address] else size
        self.peak = max(self.peak, self.held)
        self.users[address] += 1
        weakref.finalize(tensor, self.leave, address, size)

    def leave(self, address: int, size: int) -> None:
        self.users[address] -= 1
        if not self.users[address]:
            del self.users[address]
            self.held -= size


MEMORY = _Memory()


class OnCard(Tensor):
    """A tensor of the card."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor, device: torch.device = CARD) -> OnCard:
        with torch.inference_mode(False):  # views of inference tensors cannot be wrapped
            made = Tensor._make_wrapper_subclass(  # pyright: ignore
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=device,
                requires_grad=False,
            )
        made.held = held
        MEMORY.take(made)
        return made

    def __repr__(self) -> str:  # pyright: ignore
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(function, args, kwargs or {}, None)  # outside of `card`


_foreach_supported_types.append(OnCard)  # lists of them are one operation, as CUDA's are


class Watch(TorchDispatchMode):
    """What was asked of a card, by stage."""

    def __init__(
        self, *, float64: bool = True, shapes: bool = False, kernels: Kernels | None = None
    ) -> None:
        super().__init__()
        self.float64, self.shapes, self.kernels = float64, shapes, kernels
        self.stage, self.rates = "start", RATES
        self.launches: Counter[tuple[str, str]] = Counter()  # by stage and operation
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copied: Counter[str] = Counter()  # bytes, by stage
        # Copies and bytes by stage and by the two devices.
        self.crossings: Counter[tuple[str, torch.device, torch.device]] = Counter()
        self.crossed: Counter[tuple[str, torch.device, torch.device]] = Counter()
        # By stage: FLOPs, bytes between the card's memory and its cores, seconds of the roofline.
        self.flops: defaultdict[str, float] = defaultdict(float)
        self.moved: defaultdict[str, float] = defaultdict(float)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        # By stage and operation, and by stage and type of numbers.
        self.kernel_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.kernel_launches: Counter[tuple[str, str]] = Counter()
        self.flops_in: defaultdict[tuple[str, torch.dtype], float] = defaultdict(float)

    @property
    def peak(self) -> int:
        """Bytes that tensors of the card held at most."""
        return MEMORY.peak

    def progress(self, stage: str, done: int, of: int) -> None:
        """Count for this stage from here on (`circuits.progress.Progress`)."""
        del done, of
        self.stage = stage

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        return _run(function, args, kwargs or {}, self)

    def clear(self) -> None:
        """Forget what was counted, but for what is still held."""
        MEMORY.peak = MEMORY.held
        for counted in vars(self).values():
            if isinstance(counted, dict):
                counted.clear()

    def time(self, name: str, args: Any, kwargs: Any, made: list[Tensor], given: list[Tensor]):
        """Add the roofline of one operation that was launched."""
        if name in FREE:
            return
        done = self.kernels and self.kernels(name, args, kwargs, made)
        done = done or _plain_kernel(name, args, made, given)
        kind = given[-1].dtype if given else torch.float32
        rate = self.rates.get(kind, self.rates[torch.float32])
        rate = TF32_RATE if _in_tensor_cores(name, given) else rate
        seconds = max(LAUNCH * done.launches, done.moved / BANDWIDTH, done.flops / rate)
        self.flops[self.stage] += done.flops
        self.moved[self.stage] += done.moved
        self.seconds[self.stage] += seconds
        self.kernel_seconds[self.stage, name] += seconds
        self.kernel_launches[self.stage, name] += done.launches
        self.flops_in[self.stage, kind] += done.flops

    def count(self, name: str, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
        """Count one operation on the card, which is no composite."""
        place = (self.stage, name)
        if name not in FREE:
            self.launches[place] += 1
        ends = _ends_on(name, args, kwargs, tensors)
        crosses = name in COPIES and tensors[-1].device != ends
        waits = crosses and HOST in (ends, tensors[-1].device)
        blocks = waits and not (kwargs.get("non_blocking") or args[2:] == (True,))
        masked = name.strip("_") in ("index", "index_put", "index_put_impl") and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        sized = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in WAITING or blocks or masked or sized:
            self.waits[place] += 1
            self.seconds[self.stage] += WAIT
        if crosses:
            way = self.stage, tensors[-1].device, ends
            self.copied[self.stage] += tensors[-1].nbytes
            self.crossings[way] += 1
            self.crossed[way] += tensors[-1].nbytes


class _FromHost(TorchFunctionMode):
    """Numbers go from the host to the card and back by copies that `Watch` sees."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = dict(kwargs or {})
        if function is torch.tensor and "device" in kwargs:
            device = kwargs.pop("device")
            return torch.tensor(*args, **kwargs).to(device)
        if function is Tensor.new_tensor and _is_on_card(args[0]):
            dtype = kwargs.get("dtype") or args[0].dtype
            return torch.tensor(args[1], dtype=dtype).to(args[0].device)
        if function is Tensor.tolist:
            return function(args[0].cpu())
        return function(*args, **kwargs)


@contextmanager
def card(
    *,
    float64: bool = True,
    memory: int | None = None,
    shapes: bool = False,
    kernels: Kernels | None = None,
) -> Iterator[Watch]:
    """Within the block tensors can be made on the card, and are counted.

    `memory`: bytes that it has left; where there are fewer, it raises as a GPU does.  `shapes`:
    tensors have shapes and no numbers, so that they may be of any size.  `kernels`: what operations
    are to the card, where they are not one launch each.
    """
    MEMORY.peak = MEMORY.held
    MEMORY.most = None if memory is None else MEMORY.held + memory
    try:
        with (
            Watch(float64=float64, shapes=shapes, kernels=kernels) as watch,
            _FromHost(),
            generators_of_cards(NAME),
        ):
            yield watch
    finally:
        MEMORY.most = None


def on_card(subject: Subject) -> Subject:
    """A subject whose model is moved to the card, in place."""
    model = subject.frozen.model
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                held = OnCard(parameter.data)
                module._parameters[name] = nn.Parameter(held, requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnCard(buffer)
    return Subject(FrozenModel(model), subject.tokenizer, subject.identity)


def _run(function: Any, args: Any, kwargs: dict[str, Any], watch: Watch | None) -> Any:
    name = function.overloadpacket.__name__
    if _is_composite(function):  # in inference mode these arrive whole
        with watch or nullcontext():
            return function.decompose(*args, **kwargs)
    leaves = _leaves(args, kwargs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    asked, ends = kwargs.get("device"), _ends_on(name, args, kwargs, tensors)
    require_generator_of(ends, name, leaves)
    if not any(map(_is_on_card, tensors)) and not _is_card(asked):
        return function(*args, **kwargs)
    # Numbers of the host may be part of an operation, as on a GPU.
    met = {one.device for one in tensors if one.dim() or one.device != HOST}
    if name not in COPIES and len(met) > 1:
        where = "on the card and on the host" if HOST in met else "on two cards"
        raise RuntimeError(f"{name} of tensors {where}")
    if watch is not None:
        watch.count(name, args, kwargs, tensors)
    held_args = tuple(map(_held, args))
    held_kwargs = {key: _held(one) for key, one in kwargs.items()}
    if _in_tensor_cores(name, tensors):
        held_args = (*held_args[:-2], *map(_in_tf32, held_args[-2:]))
    if asked is not None:
        held_kwargs["device"] = torch.device("meta" if watch and watch.shapes else "cpu")
    found = function(*held_args, **held_kwargs)
    if ends == HOST:
        return found
    # What was changed in place is what it was; a copy that did not have to move is a new tensor.
    before = {id(one.held): one for one in tensors if isinstance(one, OnCard)}
    made = tree_map_only(
        Tensor, lambda one: before[id(one)] if id(one) in before else OnCard(one, ends), found
    )
    found = [one for one in _leaves((made,), {}) if isinstance(one, Tensor)]
    if watch is not None:
        watch.time(name, args, kwargs, found, tensors)
        if not watch.float64 and any(one.dtype == torch.float64 for one in found):
            raise TypeError(f"{name}: the card has no float64")
    return made


@cache
def _is_composite(function: Any) -> bool:
    key = "CompositeImplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), key)


def _leaves(args: Any, kwargs: dict[str, Any]) -> list[Any]:
    """Arguments of an operation, those in lists one by one."""
    each = (one if isinstance(one, (list, tuple)) else (one,) for one in (*args, *kwargs.values()))
    return [*chain.from_iterable(each)]


def _held(argument: Any) -> Any:
    """What the card's tensors in an argument of an operation hold."""
    if isinstance(argument, (list, tuple)):
        return [*map(_held, argument)]
    return argument.held if isinstance(argument, OnCard) else argument


def _plain_kernel(name: str, args: Any, made: list[Tensor], given: list[Tensor]) -> Kernel:
    """An operation that reads what it is given, and writes what it makes."""
    passes = PASSES.get(name, 1)
    read = given[1:] if name in INDEXED else given
    written = 2 * sum(map(_bytes, made)) if name in INDEXED else sum(map(_bytes, made))
    return Kernel(passes, passes * (sum(map(_bytes, read)) + written), _flops(name, args))


def _bytes(tensor: Tensor) -> int:
    """Of the memory that a tensor describes: expanded ones describe it several times."""
    held = tensor.held if isinstance(tensor, OnCard) else tensor
    return min(held.nbytes, held.untyped_storage().nbytes())


def _in_tensor_cores(name: str, tensors: list[Tensor]) -> bool:
    """Whether an operation is a product of float32 numbers of which 10 bits are read."""
    allowed = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return allowed and name.rstrip("_") in PRODUCTS and tensors[-1].dtype == torch.float32


def _in_tf32(x: Tensor) -> Tensor:
    """The nearest numbers with 10 bits after the point (ties away from 0)."""
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def _flops(name: str, args: Any) -> float:
    """Of a matrix product; of anything else nothing counts."""
    if name in ("mm", "bmm"):
        return 2.0 * args[0].numel() * args[1].shape[-1]
    if name.rstrip("_") in ("addmm", "baddbmm"):
        return 2.0 * args[1].numel() * args[2].shape[-1]
    if name.rstrip("_") == "addmv":
        return 2.0 * args[1].numel()
    return 2.0 * args[0].numel() if name == "mv" else 0.0


def _ends_on(name: str, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> torch.device:
    """Where the result of an operation is."""
    if name == "_local_scalar_dense":
        return HOST
    if name == "copy_":
        return args[0].device
    asked = kwargs.get("device")
    if asked is not None:
        return torch.device(NAME, torch.device(asked).index or 0) if _is_card(asked) else HOST
    return next((one.device for one in tensors if _is_on_card(one)), HOST)


def _is_card(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _is_on_card(tensor: Tensor) -> bool:
    return isinstance(tensor, OnCard)
