"""What is known about a feature beyond one prompt: its label, examples and output tokens."""

from __future__ import annotations

from pydantic import Field, model_validator

from graphs.core.records import Record


class Example(Record):
    """One text, and the feature's activation at each of its tokens."""

    tokens: tuple[str, ...]
    activations: tuple[float, ...]

    @model_validator(mode="after")
    def _fits(self) -> Example:
        if len(self.tokens) != len(self.activations):
            raise ValueError(
                f"{len(self.tokens)} tokens need as many activations, got {len(self.activations)}."
            )
        return self


class Description(Record):
    """One feature of a dictionary."""

    label: str  # in a few words; may be empty
    said: tuple[str, ...] = ()  # tokens nearest to what it writes at its own layer
    raised: tuple[str, ...] = ()  # tokens whose logits it raises most, over all written layers
    lowered: tuple[str, ...] = ()  # tokens whose logits it lowers most
    frequency: float | None = Field(default=None, ge=0.0, le=1.0)  # share of tokens it fires on
    histogram: tuple[int, ...] = ()  # activations above 0 in equal bins up to the largest
    largest: float | None = None  # activation
    examples: tuple[Example, ...] = ()  # strongest first
