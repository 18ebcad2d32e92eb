"""Where the parts of a model lie: on one device, or block by block on several.

A block is never divided.  What is folded out of it, its recording, its dictionary and what is added
to the residual there lie beside it (`FrozenBlock.device`).  All that belongs to no block lies with
the first one, where a sweep ends: what enters it, the final residual, targets, the columns of
features, and rows.  Only the unembedding stays where it is, as it may be the largest matrix.

While the model runs, what a block is given arrives on its device by a hook, and what several blocks
are given, such as masks and rotations, is copied to each device once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from transformers import PreTrainedModel

from circuits.machine import WITHOUT_FLOAT64, free_device_bytes, moved
from circuits.model.architectures import layout_of, part
from graphs.errors import HeadwaterError

AUTO = "auto"
ROOM = 1.5  # bytes that devices chosen by us have free, per byte of the model; not measured


class DeviceError(HeadwaterError):
    """torch cannot use the device, or the model does not lie on devices as it must."""


def usable_devices(names: str, dtype: torch.dtype | None = None) -> tuple[torch.device, ...]:
    """Devices by name, several with commas between them; auto: all CUDA GPUs, or the CPU.

    Raises DeviceError for those that torch cannot compute on, or not with numbers of this type.
    Nobody has run mps yet, Apple's GPUs.
    """
    if names == AUTO:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return tuple(torch.device("cuda", n) for n in range(count)) or (torch.device("cpu"),)
    found = tuple(_usable(name.strip(), names) for name in names.split(","))
    if len(set(map(_numbered, found))) < len(found):
        raise DeviceError(f"The devices {names!r} name one device twice: name each once.")
    if dtype == torch.float64 and any(one.type in WITHOUT_FLOAT64 for one in found):
        raise DeviceError(f"The device {names!r} has no float64: use --dtype float32.")
    return found


def _usable(name: str, names: str) -> torch.device:
    refusal = (
        f"The device {name!r} is not available: choose auto or cpu, or cuda or mps if torch "
        "finds such a GPU."
    )
    if not name or (name == AUTO and name != names):
        raise DeviceError(
            f"The devices {names!r} are not a list of devices: give auto alone, one device, or "
            "several with commas between them, such as cuda:0,cuda:1."
        )
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(refusal) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(refusal)
    return device


def _numbered(device: torch.device) -> tuple[str, int]:
    """A device with its number, which may be left out of its name."""
    number = torch.cuda.current_device() if device.type == "cuda" else 0
    return device.type, number if device.index is None else device.index


def place(model: PreTrainedModel, devices: Sequence[torch.device], *, as_few: bool = False) -> None:
    """Move a model to a device, or its blocks, in order, to several.

    Each gets as many bytes; with `as_few` it gets as much as it has room for, and no more devices
    are taken than there have to be.  The final norm and the unembedding go with the last block, or
    with the embeddings if they share a matrix.

    Raises DeviceError for more devices than blocks.
    """
    if as_few:
        devices, shares = _needed(devices, _bytes(model))
    else:
        shares = [1.0] * len(devices)
    if len(devices) == 1:
        model.to(devices[0])  # pyright: ignore[reportArgumentType]  # lost in a decorator
        return
    layout = layout_of(model)
    blocks = list(part(model, layout.blocks).children())
    if len(devices) > len(blocks):
        raise DeviceError(
            f"The model has {len(blocks)} blocks, fewer than the {len(devices)} devices given: "
            f"name at most {len(blocks)}."
        )
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    ends = [part(model, layout.final_norm), head]
    tied = head.weight is model.get_input_embeddings().weight
    apart = {id(inner) for module in (*blocks, *ends) for inner in module.modules()}
    others = [one for one in model.modules() if id(one) not in apart and _own_bytes(one)]
    first = sum(map(_own_bytes, others))
    last = 0 if tied else sum(map(_bytes, ends))
    for module in others:
        module.to(devices[0])
    for block, number in zip(
        blocks, divided(first, [_bytes(one) for one in blocks], last, shares), strict=True
    ):
        block.to(devices[number])
    for module in ends:
        module.to(devices[0] if tied else devices[-1])


def divided(first: int, blocks: Sequence[int], last: int, shares: Sequence[float]) -> list[int]:
    """By block the number of its device; sizes of what comes before, of blocks and behind them.

    A block goes where its middle lies when all is laid out in order and divided by these shares.
    Every device has a block if there are enough.

    >>> divided(2, [2, 2, 2, 2], 0, [1.0, 1.0])
    [0, 0, 1, 1]
    """
    ends = [sum(shares[: n + 1]) / sum(shares) for n in range(len(shares))]
    whole, start = first + sum(blocks) + last, first
    found: list[int] = []
    for number, size in enumerate(blocks):
        middle = (start + size / 2) / whole
        own = next(n for n, end in enumerate(ends) if middle <= end or n == len(ends) - 1)
        left, before = len(blocks) - number, found[-1] if found else -1
        # As many blocks are left as there are devices behind: each takes one.
        own = max(min(own, before + 1), len(shares) - left)
        found.append(own)
        start += size
    return found


def _needed(
    devices: Sequence[torch.device], size: int
) -> tuple[Sequence[torch.device], list[float]]:
    """The first devices that have room for so many bytes, and what is free on each."""
    free = [float(free_device_bytes(one)) for one in devices]
    count = next((n for n in range(1, len(free)) if sum(free[:n]) >= ROOM * size), len(free))
    return devices[:count], free[:count]


def _bytes(module: nn.Module) -> int:
    """Of all parameters and buffers, each once."""
    return sum({id(one): one.nbytes for one in (*module.parameters(), *module.buffers())}.values())


def _own_bytes(module: nn.Module) -> int:
    """Of those that are its own, and not of modules in it."""
    own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
    return sum(one.nbytes for one in own)


def device_of(module: nn.Module, what: str) -> torch.device:
    """Where all of a module lies.

    Raises DeviceError if it is on several devices, or in no memory of any; `what` is its name.
    """
    found = {one.device for one in module.parameters()}
    if any(one.type == "meta" for one in found):
        raise DeviceError(
            f"The weights of {what} are on no device but in host memory or in files, from which "
            "they are read while the model runs: place the whole model on devices."
        )
    if len(found) != 1:
        names = ", ".join(sorted(map(str, found))) or "none"
        raise DeviceError(
            f"{what[:1].upper()}{what[1:]} lies on several devices ({names}): place each block of "
            "the model on one."
        )
    return found.pop()


def connect(model: nn.Module, modules: Sequence[tuple[nn.Module, torch.device]]) -> None:
    """Let modules get what they are given on their own devices, from now on; once per model.

    Who has placed the model may have done so by hooks of another kind, after which nothing is left
    to move here.
    """
    if len({device for _, device in modules}) == 1 or any(
        isinstance(hook, _Arriving) for hook in modules[0][0]._forward_pre_hooks.values()
    ):
        return
    known: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}
    for module, device in modules:
        module.register_forward_pre_hook(_Arriving(device, known), with_kwargs=True)
    model.register_forward_hook(lambda *_: known.clear(), always_call=True)


class _Arriving:
    """A hook that moves what a module is given to its device."""

    def __init__(
        self, device: torch.device, known: dict[tuple[int, torch.device], tuple[Tensor, Tensor]]
    ) -> None:
        # What has arrived in this run, with what it is a copy of, so that its id stays its own.
        self.device, self.known = device, known

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As torch calls it."""
        del module
        return tree_map_only(Tensor, self._arrived, (args, kwargs))

    def _arrived(self, given: Tensor) -> Tensor:
        if given.device == self.device:
            return given
        key = id(given), self.device
        if key not in self.known:
            self.known[key] = given, moved(given, self.device)
        return self.known[key][1]
