"""Tiny models over two made-up cards, or over a card and the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from card import CARD, HOST, SECOND, Watch
from torch.utils._python_dispatch import _disable_current_modes

from circuits.features.active import FeatureSource
from circuits.features.hybrid import Filled
from circuits.features.transcoder_set import TranscoderSet
from circuits.model.frozen import FrozenModel
from circuits.model.placement import place
from circuits.model.subject import Subject
from graphs import ModelIdentity
from tests.tiny import tiny_model, toy_tokenizer

Side = TypeVar("Side")
# The first says which sweep runs: that of accelerators, or that of the CPU.
WITH_GRADIENTS = {"CPU first": (HOST, CARD), "card first": (CARD, HOST)}
# In torch, gradients flow on one card only of a backend that is written in Python.
PAIRS = {"two cards": (CARD, SECOND), **WITH_GRADIENTS}


def over(devices: Sequence[torch.device], name: str, **told: object) -> Subject:
    """A tiny model divided over devices; `told` are further fields of its config."""
    model = tiny_model(name, **told)
    place(model, devices)
    frozen = FrozenModel(model)
    identity = ModelIdentity(name=name, architecture=type(model).__name__, n_layers=frozen.n_layers)
    return Subject(frozen, toy_tokenizer(), identity)


def beside(subject: Subject, source: FeatureSource) -> FeatureSource:
    """A dictionary with each layer where its block lies."""
    if isinstance(source, TranscoderSet):
        return source.beside(subject.frozen)
    if isinstance(source, Filled):
        return Filled(source.transcoders.beside(subject.frozen), source.neurons)
    return source


def crossings(watch: Watch) -> dict[tuple[int | None, int | None], int]:
    """Copies from card to card, by their numbers."""
    found: Counter[tuple[int | None, int | None]] = Counter()
    for (_, source, end), count in watch.crossings.items():
        if HOST not in (source, end):
            found[source.index, end.index] += count
    return dict(found)


@contextmanager
def unwatched() -> Iterator[None]:
    """Within `card`, for what runs on the CPU to be compared with: several times as fast."""
    with _disable_current_modes():
        yield


def sides(own: Side, held: Side) -> Iterator[Side]:
    """What to compare with, for which nothing is watched, and then what is on devices."""
    with unwatched():
        yield own
    yield held
