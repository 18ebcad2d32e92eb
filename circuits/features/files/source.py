"""The feature source that is asked for: transcoders by name, those that ship, or neurons."""

from __future__ import annotations

from circuits.atlas.shipped import ATLAS, atlas_transcoders
from circuits.features.active import FeatureSource
from circuits.features.files.reading import read_transcoders
from circuits.features.hook_points import ReadPoint, WritePoint
from circuits.features.hybrid import Filled
from circuits.features.neurons import Neurons
from circuits.model.subject import Subject
from graphs.errors import HeadwaterError

MOST_NEURONS = Neurons().max_features


class SourceError(HeadwaterError):
    """What is asked for does not go together."""


def read_source(
    subject: Subject,
    transcoders: str | None = None,
    *,
    neurons: bool = False,
    max_neurons: int = MOST_NEURONS,
    read: ReadPoint | None = None,
    write: WritePoint | None = None,
    filled: bool = False,
) -> FeatureSource:
    """Transcoders by their reference; else those that ship with the model; else its neurons.

    `read` and `write` say where transcoders do so, if their files do not; `filled` takes neurons
    in layers that they leave out.  Raises SourceError for these without transcoders,
    DictionaryMismatch for a dictionary of another model, and as `read_transcoders`.
    """
    reference = transcoders
    if reference is None and not neurons:
        reference = shipped_transcoders(subject)
    if reference is None:
        if filled or read is not None or write is not None:
            raise SourceError(
                "--read-at, --write-at and --fill say something about transcoders: give "
                "--transcoders."
            )
        return Neurons(max_neurons)
    found = read_transcoders(reference, read=read, write=write)
    found.require_fit(subject.frozen)
    return Filled(found, Neurons(max_neurons)) if filled else found


def shipped_transcoders(subject: Subject) -> str | None:
    """The transcoders that come with a model, if any do."""
    name = subject.identity.name
    return str(atlas_transcoders(name)) if name in ATLAS else None
