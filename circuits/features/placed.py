"""Where the matrices of a dictionary are, and whether a device has room for them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from circuits.features.kept_in import KeptIn
from circuits.machine import free_device_bytes, gigabytes, is_accelerator
from graphs.errors import HeadwaterError


class NoRoom(HeadwaterError):
    """A device does not hold a dictionary that is to be on it."""


def moves_to(device: torch.device, size: int, memory: int | None, kept_in: KeptIn) -> bool:
    """Whether so many bytes of a dictionary go to a device, within `memory` bytes in all.

    Raises NoRoom if they are to, and the device does not hold them.
    """
    if not is_accelerator(device) or kept_in == KeptIn.FILES:
        return False
    free = free_device_bytes(device, memory)
    if kept_in == KeptIn.DEVICE and size > free:
        raise NoRoom(
            f"The dictionary takes {gigabytes(size)} on {device}, and {gigabytes(free)} are free: "
            "leave out --dictionary-in device, so that its encoders are streamed from their files."
        )
    return kept_in == KeptIn.DEVICE or 2 * size <= free


def placed(value: Any, device: torch.device | None) -> Any:
    """A value with all tensors in it on a device; None: as it is."""
    if device is None:
        return value
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(placed(part, device) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {one.name: placed(getattr(value, one.name), device) for one in fields(value)}
        return replace(value, **parts)
    return value


def bytes_in(value: Any) -> int:
    """Of all tensors in a value."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, tuple):
        return sum(map(bytes_in, value))
    if is_dataclass(value) and not isinstance(value, type):
        return sum(bytes_in(getattr(value, one.name)) for one in fields(value))
    return 0
