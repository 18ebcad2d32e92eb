"""Attention in a run: what the heads of a layer do in each copy of the prompt.

    query, key, value      the copy's own, or for some heads given ones
    pattern                the recorded one, or the softmax of the scores; then entries are scaled
    output                 pattern · value, scaled or replaced at some queries

Entries are scaled without the others of their query: a row then no longer adds up to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.machine import on_device
from circuits.recording.meeting import Meeting
from circuits.recording.record import BlockRecording

See = Callable[[Meeting, Tensor], None]  # what meets, and what heads mix


class Scaled(NamedTuple):
    """Factors of outputs of heads, or of entries of their patterns."""

    place: tuple[Int[Tensor, " row"], ...]  # copy, head, query; of entries also key
    factor: Float[Tensor, " row"]


class Replaced(NamedTuple):
    """Outputs of heads that are given."""

    place: tuple[Int[Tensor, " row"], ...]  # copy, head, query
    output: Float[Tensor, "row d_head"]


class Given(NamedTuple):
    """Queries, keys or values of some heads."""

    heads: Int[Tensor, " some_heads"]
    vectors: Float[Tensor, "batch some_heads pos d_head"]


Side = Literal["query", "key", "value"]


@dataclass(frozen=True)
class HeadRules:
    """What heads of one layer do other than in the model."""

    given: tuple[tuple[Side, Given], ...] = ()
    entries: Scaled | None = None
    outputs: Scaled | None = None
    replaced: Replaced | None = None
    see: tuple[See, ...] = ()


AS_IT_IS = HeadRules()


@dataclass(frozen=True)
class HeldPattern:
    """A recorded pattern that is held, but for some heads."""

    recorded: BlockRecording
    running: tuple[int, ...]  # heads whose patterns run

    def of(self, meeting: Meeting) -> Float[Tensor, "#batch head query key"]:
        """The pattern, which is the same in all copies unless some of it runs."""
        held = self.recorded.pattern[None]
        if not self.running:
            return held
        own = meeting.pattern
        runs = on_device(np.isin(np.arange(own.shape[1]), self.running), own.device)
        return torch.where(runs[:, None, None], own, held)


@dataclass(frozen=True)
class Attending:
    """One layer's attention in one run (`circuits.recording.meeting.Mix`)."""

    held: HeldPattern | None
    rules: HeadRules

    def __call__(self, meeting: Meeting) -> Float[Tensor, "batch head query d_head"]:
        """What the heads mix."""
        rules, meeting = self.rules, meeting.by_head
        for name, given in rules.given:
            own = getattr(meeting, name).clone()
            own[:, given.heads] = given.vectors
            meeting = meeting._replace(**{name: own})
        pattern = meeting.pattern if self.held is None else self.held.of(meeting)
        if rules.entries is not None:
            pattern = _scaled(pattern.expand(len(meeting.query), -1, -1, -1), rules.entries)
        mixed = pattern @ meeting.value
        if rules.outputs is not None:
            mixed = _scaled(mixed, rules.outputs)
        if rules.replaced is not None:
            mixed = mixed.index_put(rules.replaced.place, rules.replaced.output)
        for see in rules.see:
            see(meeting, mixed)
        return mixed


def _scaled(own: Float[Tensor, "*any"], scaled: Scaled) -> Float[Tensor, "*any"]:
    chosen = own[scaled.place]
    factor = scaled.factor.view(-1, *(1 for _ in chosen.shape[1:]))
    return own.index_put(scaled.place, chosen * factor)
