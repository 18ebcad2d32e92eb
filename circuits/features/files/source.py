"""Choosing a feature source: transcoders by name, those that ship with a model, or neurons."""

from __future__ import annotations

from dataclasses import dataclass

from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.hybrid import Filled
from circuits.features.kept_in import KeptIn
from circuits.features.neurons import Neurons
from circuits.features.points import ReadPoint, WritePoint
from circuits.model.subject import Subject
from graphs.errors import HeadwaterError

MOST_NEURONS = Neurons().max_features


class SourceError(HeadwaterError):
    """Settings of a feature source that contradict each other."""


@dataclass(frozen=True)
class SourceChoice:
    """Which features to use; by default the transcoders that ship with the model, else neurons."""

    transcoders: str | None = None  # a folder, a name on the Hub or a list of files
    neurons: bool = False  # use the model's own neurons even if transcoders ship with it
    max_neurons: int = MOST_NEURONS
    read: ReadPoint | None = None  # where transcoders read, if their files do not say
    write: WritePoint | None = None  # where they write, likewise
    filled: bool = False  # use neurons in layers without transcoders
    kept_in: KeptIn = KeptIn.AUTO  # where the matrices of transcoders are


def read_source(subject: Subject, choice: SourceChoice, memory: int | None = None) -> FeatureSource:
    """The features that a choice names, for one model.

    A dictionary is placed on the model's accelerators as the choice says, within `memory` bytes in
    all.

    Raises SourceError for read and write points or filling without transcoders,
    DictionaryMismatch for a dictionary of another model, NoRoom for one that is to be on a device
    and does not fit, and as `read_transcoders`.
    """
    reference = choice.transcoders
    if reference is None and not choice.neurons:
        reference = shipped_transcoders(subject)
    neurons = Neurons(choice.max_neurons)
    if reference is None:
        if choice.filled or choice.read is not None or choice.write is not None:
            raise SourceError("--read-at, --write-at and --fill need --transcoders.")
        return neurons
    found = read_transcoders(reference, read=choice.read, write=choice.write)
    found.require_fit(subject.frozen)
    found = found.beside(subject.frozen, memory, choice.kept_in)
    return Filled(found, neurons) if choice.filled else found


def shipped_transcoders(subject: Subject) -> str | None:
    """The transcoders that come with a model, if any do."""
    name = subject.identity.name
    return str(atlas_transcoders(name)) if name in ATLAS else None
