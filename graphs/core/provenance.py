"""Provenance: where a graph came from and how far it can be trusted.

These are the only pydantic models of the package: they are the JSON header of the graph file,
so bytes from outside are checked here and nowhere else.

Schema 2 (November 2026) names the vocabulary and the contents of model and dictionary; a header of
schema 1 is read as one of schema 2 that leaves these open.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    model_validator,
)

from graphs.core.opening import DocumentOpening, Opening, mismatches
from graphs.core.records import Record
from graphs.core.regime import Regime
from graphs.core.report import Report

SCHEMA_VERSION = 2
NEURONS = "neurons"  # kind of dictionary: the model's own
MOST_LAYERS = 10_000  # far more than any model has, and few enough to be counted one by one
UNKNOWN = "unknown"  # what a file of another program does not say


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
TokenId = Annotated[int, Field(ge=-1, lt=10**18)]


class ModelIdentity(Record):
    """The language model that was traced."""

    name: str  # what was given to --model
    architecture: str  # transformers class
    revision: str | None = None  # commit of the repository or version of the package
    n_layers: int = Field(ge=1, le=MOST_LAYERS)
    vocabulary: str | None = None  # digest of all tokens and their ids; None: not known
    fingerprint: str | None = None  # digest of config and weights, whole files; None: not known


class DictionaryIdentity(Record):
    """Where the features come from."""

    kind: str  # neurons, transcoder, cross-layer transcoder; imported graphs keep their word
    name: str
    revision: str | None = None
    fingerprint: str | None = None  # digest of all that is read, whole files; None: not known
    documents: DocumentOpening | None = None  # how those it was trained on begin; None: not known


class Sink(Record):
    """A position without BOS or the like whose residual stream is far larger than the others'."""

    pos: int = Field(ge=0)
    layer: int = Field(ge=0)  # whose MLP reads the residual that is largest
    ratio: float = Field(ge=0.0)  # its norm over the median of all positions
    influence: float = Field(ge=0.0)  # share of all features' influence that the position's have


class Target(Record):
    """One traced output."""

    text: str  # the token, or what the direction is
    token_id: TokenId | None = None  # vocabulary entry; None for contrasts and vectors
    probability: Probability | None  # model's own; 1 for contrasts and vectors; None: not known


class Measured(Record):
    """One intervention in the model, beside what the graph says of it."""

    what: str = Field(min_length=1)  # in words, as in "feature:12/345@7 to 0"
    regime: Regime
    target: str  # the logit or target node, as in graphs.core.nodes
    predicted: float | None  # change of the target's value by the graph's edges; None: unknown
    measured: float  # change in the model


class Checks(Record):
    """What the trace measured about itself; None where it does not apply or was not measured."""

    conservation_max: float | None = None  # largest |sum of row - value| / sum of |row|
    conservation_median: float | None = None
    conservation_limit: float | None = None  # of these and replay; above it the graph fails
    replay_max_difference: float | None = None  # replayed minus recorded logits, relative
    recording_max_difference: float | None = None  # recorded minus model's own logits, relative
    recording_limit: float | None = None  # above it the graph fails
    influence_resolved: float | None = None  # 1 - mass that waits at features not expanded
    error_influence_share: float | None = None  # of all influence that ends at inputs or errors
    active_features: int | None = None  # before selection
    expanded_features: int | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per check that does not hold."""
        measured = (
            (
                self.conservation_max,
                self.conservation_limit,
                "Conservation fails: a row misses its target's own value by {:.1e} of its absolute "
                "sum, the limit is {:.0e}.",
            ),
            (
                self.replay_max_difference,
                self.conservation_limit,
                "Replay fails: a logit of the local replacement model differs from the model's own "
                "by {:.1e} of the largest, the limit is {:.0e}.",
            ),
            (
                self.recording_max_difference,
                self.recording_limit,
                "Recording fails: a logit of the model as it was recorded differs from the model's "
                "own by {:.1e} of the largest, the limit is {:.0e}.",
            ),
        )
        return tuple(
            sentence.format(value, limit)
            for value, limit, sentence in measured
            if value is not None and limit is not None and value > limit
        )


def _upgraded(version: Any) -> Any:
    """The present schema for the first one, whose fields all have their meaning still."""
    return SCHEMA_VERSION if type(version) is int and version == 1 else version


class Provenance(Record):
    """Header of a graph: model, dictionary, prompt, settings and checks."""

    schema_version: Annotated[Literal[2], BeforeValidator(_upgraded)] = SCHEMA_VERSION
    generator: str  # program and version
    model: ModelIdentity
    dictionary: DictionaryIdentity
    dtype: str
    prompt: str  # as it was tokenised, with special tokens
    tokens: tuple[str, ...]  # one string per position
    token_ids: tuple[TokenId, ...]  # -1: not known
    context_only: int = Field(default=0, ge=0)  # first positions, without features and errors
    opening: Opening | None = None  # None: not known
    sinks: tuple[Sink, ...] | None = None  # attention sinks; None: not looked for
    targets: tuple[Target, ...]  # in the order of the graph's logit and target nodes
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    checks: Checks = Checks()
    measured: tuple[Measured, ...] = ()
    report: Report | None = None  # of `headwater check`

    @model_validator(mode="after")
    def _sinks_in_the_prompt(self) -> Provenance:
        if any(sink.pos >= len(self.tokens) for sink in self.sinks or ()):
            raise ValueError("a sink is at a position that the prompt does not have")
        return self

    @property
    def mismatches(self) -> tuple[str, ...]:
        """One sentence per way in which the prompt begins unlike the dictionary's documents."""
        return mismatches(self.dictionary.documents, self.opening, self.context_only)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per check of the trace or in the model that does not hold."""
        return (*self.checks.failures, *(self.report.failures if self.report else ()))
