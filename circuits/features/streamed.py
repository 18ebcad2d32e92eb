"""Encoders that stay in their files: a device multiplies by one part while the next arrives.

A dictionary may be larger than the device: 62 layers of 16,384 features at 5,376 dimensions take
22 GB in bfloat16, of 262,144 features 350 GB.  All of its encoder rows are needed once, to find
what is active, and of decoders those of active features alone.  So parts of encoders, of
`CONVERTED_VALUES` numbers in the type of the file, go through two buffers of pinned memory:

    host      reads part n + 1 into the one buffer
    copies    take part n from the other to the device, in a stream of their own
    products  are with part n - 1, converted to the type of the inputs

At once a device holds two parts as they are and one converted, whatever the dictionary's size.  On
the CPU there is nothing to do: what is mapped is read where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from circuits.machine import host_buffer, moved

BUFFERS = 2
STREAMS = {"cuda"}  # types of devices that copy beside their products


class Sent(NamedTuple):
    """A part on its way."""

    part: Tensor  # on the device
    like: Tensor  # whose type of numbers it gets
    buffer: int
    lane: Lane


def streamed(parts: Iterable[tuple[Tensor, Tensor]], largest: int) -> Iterator[Tensor]:
    """Parts of matrices on the host, each in the type and on the device of another tensor.

    They come in order, each while the next is on its way.  No part has more than `largest` bytes.
    """
    lanes: dict[torch.device, Lane] = {}
    ahead: Sent | None = None
    for part, like in parts:
        if like.device not in lanes:
            lanes[like.device] = Lane(like.device, largest)
        sent = lanes[like.device].send(part, like)
        if ahead is not None:
            yield ahead.lane.arrived(ahead)
        ahead = sent
    if ahead is not None:
        yield ahead.lane.arrived(ahead)


class Lane:
    """Buffers through which the host sends matrices to one device."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.device, self.turn = device, 0
        self.buffers = [host_buffer(size, torch.uint8, device) for _ in range(BUFFERS)]
        # Other devices copy in the order of their products.
        self.stream = torch.cuda.Stream(device) if device.type in STREAMS else None
        self.copied = [torch.cuda.Event() for _ in range(BUFFERS)] if self.stream else []

    def send(self, part: Tensor, like: Tensor) -> Sent:
        """Read a part into a buffer, once what it held has left, and start its copy."""
        number, self.turn = self.turn, (self.turn + 1) % BUFFERS
        if self.stream is not None:
            self.copied[number].synchronize()
        held = self.buffers[number][: part.nbytes].view(part.dtype).view(part.shape)
        held.copy_(part)
        with nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            there = moved(held, self.device)
            if self.stream is not None:
                self.copied[number].record(self.stream)
        return Sent(there, like, number, self)

    def arrived(self, sent: Sent) -> Tensor:
        """A part for the products that come next, which wait for its copy."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_event(self.copied[sent.buffer])
            sent.part.record_stream(current)  # its memory is not taken again before they end
        return sent.part.to(sent.like.dtype)
