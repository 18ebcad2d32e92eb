"""What a page may ask of the model, and who does it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field

import graphs
from circuits.progress import Progress
from graphs.core.records import Record


class Asked(Record):
    """A trace that is asked for."""

    prompt: str = Field(min_length=1, max_length=100_000)


class AskedAnnotations(graphs.Annotations):
    """Annotations that are to be kept, and what they were when they were read."""

    read: graphs.Annotations = graphs.NO_ANNOTATIONS

    @property
    def own(self) -> graphs.Annotations:
        return graphs.Annotations.model_validate(self.model_dump(exclude={"read"}))


class AskedEdit(Record):
    """One edit: nodes by name, to so much, times so much or so much more."""

    kind: Literal["set", "scale", "add"]
    nodes: str = Field(min_length=1, max_length=1000)
    number: float

    def edit(self) -> graphs.Edit:
        kinds = {"set": graphs.Set, "scale": graphs.Scale, "add": graphs.Add}
        return kinds[self.kind](self.nodes, self.number)


class AskedIntervention(Record):
    """An intervention that is asked for; annotations say what supernodes are."""

    edits: tuple[AskedEdit, ...] = Field(min_length=1, max_length=1000)
    regime: graphs.Regime = graphs.Regime.CONSTRAINED
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS


@runtime_checkable
class Workshop(Protocol):
    """What is done with the model."""

    def trace(self, prompt: str, report: Progress) -> str:
        """Write the graph of a prompt; the name of its file."""
        ...

    def intervene(self, path: Path, asked: AskedIntervention, report: Progress) -> object:
        """What an intervention on a graph does, as JSON; the graph's file keeps it."""
        ...
