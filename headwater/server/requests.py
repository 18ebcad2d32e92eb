"""Requests of a page, and the protocol of the workspace that carries them out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

import graphs
from circuits.progress import Progress
from graphs.core.records import Record

MOST_NEW_TOKENS, MOST_FEATURES = 200, 100_000


class TraceRequest(Record):
    """A prompt to trace, and what to explain: the words of `headwater trace`."""

    prompt: str = Field(min_length=1, max_length=100_000)
    target: tuple[str, ...] = Field(default=(), max_length=20)
    against: str | None = Field(default=None, min_length=1, max_length=1000)
    chat: bool = False
    max_features: int | None = Field(default=None, ge=1, le=MOST_FEATURES)  # None: the server's


class AnnotationsRequest(graphs.Annotations):
    """Annotations to save, and what they were when the page read them."""

    read: graphs.Annotations = graphs.NO_ANNOTATIONS

    @property
    def own(self) -> graphs.Annotations:
        return graphs.Annotations.model_validate(self.model_dump(exclude={"read"}))


class EditRequest(Record):
    """One edit: nodes by name, and the number to set, to multiply by or to add."""

    kind: Literal["set", "scale", "add"]
    nodes: str = Field(min_length=1, max_length=1000)
    number: float

    def edit(self) -> graphs.Edit:
        kinds = {"set": graphs.SetTo, "scale": graphs.Scale, "add": graphs.Add}
        return kinds[self.kind](self.nodes, self.number)


class InterventionRequest(Record):
    """An intervention: edits, in words too; annotations define its supernodes."""

    edits: tuple[EditRequest, ...] = Field(default=(), max_length=1000)
    words: str = Field(default="", max_length=10_000)  # as in headwater.arguments.edits
    generate: int = Field(default=0, ge=0, le=MOST_NEW_TOKENS)
    regime: graphs.Regime = graphs.Regime.CONSTRAINED
    annotations: graphs.Annotations = graphs.NO_ANNOTATIONS

    @model_validator(mode="after")
    def _has_edits(self) -> InterventionRequest:
        if not self.edits and not self.words.strip():
            raise ValueError("there is no edit: write one, as in scale concept:Texas=0")
        return self

    @property
    def what(self) -> str:
        """What is asked for, in one line."""
        lines = [line.strip() for line in self.words.splitlines() if line.strip()]
        return "; ".join([*(str(edit.edit()) for edit in self.edits), *lines])


@runtime_checkable
class Workspace(Protocol):
    """Traces and interventions on one model."""

    def examples(self) -> tuple[str, ...]:
        """Prompts that the model knows how to continue."""
        ...

    def trace(self, request: TraceRequest, report: Progress) -> str:
        """Write the graph of a prompt; returns the name of its file."""
        ...

    def intervene(self, path: Path, request: InterventionRequest, report: Progress) -> object:
        """The effects of an intervention as JSON; they are stored in the graph's file."""
        ...
