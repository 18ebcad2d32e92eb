"""Random numbers on a made-up card: drawn by a generator of the card, or refused, as CUDA does.

A generator of the card draws what one of the host with its seed draws.  A real card draws other
numbers, so no test may rest on them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Devices of generators that say they are on a card, by the address that operations get to see.
OF_CARDS: dict[int, torch.device] = {}


def device_of(generator: torch.Generator) -> torch.device:
    """Where a generator says that it is."""
    return OF_CARDS.get(generator._cdata, generator.device)  # pyright: ignore


def require_generator_of(device: torch.device, name: str, leaves: list[Any]) -> None:
    """Raises RuntimeError if an operation fills this device by a generator of another."""
    for leaf in leaves:
        if isinstance(leaf, torch._C.Generator) and device_of(leaf).type != device.type:
            raise RuntimeError(
                f"{name}: expected a {device.type!r} generator, found one on {device_of(leaf)}"
            )


@contextmanager
def generators_of_cards(kind: str) -> Iterator[None]:
    """Within the block `torch.Generator` makes generators of this kind of device too."""

    class Generator(torch._C.Generator):
        def __new__(cls, device: torch.device | str = "cpu") -> Generator:
            on_card = torch.device(device).type == kind
            made = super().__new__(cls, "cpu" if on_card else device)  # pyright: ignore[reportCallIssue]  # stubs lack it
            if on_card:
                OF_CARDS[made._cdata] = torch.device(device)  # pyright: ignore
            return made

        def __del__(self) -> None:
            OF_CARDS.pop(self._cdata, None)  # pyright: ignore

    before = torch.Generator
    torch.Generator = Generator
    try:
        yield
    finally:
        torch.Generator = before
