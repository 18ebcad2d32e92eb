"""Provenance: where a graph came from and how far it can be trusted.

These are the only pydantic models of the package: they are the JSON header of the graph file,
so bytes from outside are checked here and nowhere else.

Schema 2 (November 2026) names the vocabulary and the contents of model and dictionary; a header of
schema 1 is read as one of schema 2 that leaves these open.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from graphs.regime import Regime
from graphs.report import Report

SCHEMA_VERSION = 2
NEURONS = "neurons"  # kind of dictionary: the model's own
MOST_LAYERS = 10_000  # far more than any model has, and few enough to be counted one by one
UNKNOWN = "unknown"  # what a file of another program does not say


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelIdentity(_Frozen):
    """The language model that was traced."""

    name: str  # what was given to --model
    architecture: str  # transformers class
    revision: str | None = None  # commit of the repository or version of the package
    n_layers: int = Field(ge=1, le=MOST_LAYERS)
    vocabulary: str | None = None  # digest of all tokens and their ids; None: not known
    fingerprint: str | None = None  # digest of config and weights, whole files; None: not known


class DictionaryIdentity(_Frozen):
    """Where the features come from."""

    kind: str  # neurons, transcoder, cross-layer transcoder; imported graphs keep their word
    name: str
    revision: str | None = None
    fingerprint: str | None = None  # digest of all that is read, whole files; None: not known


class Target(_Frozen):
    """One traced output."""

    text: str  # the token, or what the direction is
    token_id: int | None = None  # vocabulary entry; None for contrasts and vectors
    probability: float = Field(ge=0.0, le=1.0)  # model's own; 1 for contrasts and vectors


class Measured(_Frozen):
    """One intervention in the model, beside what the graph says of it."""

    what: str = Field(min_length=1)  # in words, as in "feature:12/345@7 to 0"
    regime: Regime
    target: str  # the logit or target node, as in graphs.nodes
    predicted: float | None  # change of the target's value by the graph's edges; None: unknown
    measured: float  # change in the model


class Checks(_Frozen):
    """What the trace measured about itself; None where it does not apply or was not measured."""

    conservation_max: float | None = None  # largest |sum of row - value| / sum of |row|
    conservation_median: float | None = None
    conservation_limit: float | None = None  # of both; above it the graph fails; None: bfloat16
    replay_max_difference: float | None = None  # replayed minus model's own logits, relative
    influence_resolved: float | None = None  # 1 - mass that waits at features not expanded
    error_influence_share: float | None = None  # of all influence that ends at inputs or errors
    active_features: int | None = None  # before selection
    expanded_features: int | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per check that does not hold."""
        limit = self.conservation_limit
        if limit is None:
            return ()
        found: list[str] = []
        if self.conservation_max is not None and self.conservation_max > limit:
            found.append(
                "Conservation fails: a row misses its target's own value by "
                f"{self.conservation_max:.1e} of its absolute sum, the limit is {limit:.0e}."
            )
        if self.replay_max_difference is not None and self.replay_max_difference > limit:
            found.append(
                "Replay fails: a logit of the local replacement model differs from the model's "
                f"own by {self.replay_max_difference:.1e} of the largest, the limit is {limit:.0e}."
            )
        return tuple(found)


def _upgraded(version: Any) -> Any:
    """The present schema for the first one, whose fields all have their meaning still."""
    return SCHEMA_VERSION if type(version) is int and version == 1 else version


class Provenance(_Frozen):
    """Header of a graph: model, dictionary, prompt, settings and checks."""

    schema_version: Annotated[Literal[2], BeforeValidator(_upgraded)] = SCHEMA_VERSION
    generator: str  # program and version
    model: ModelIdentity
    dictionary: DictionaryIdentity
    dtype: str
    prompt: str  # as it was tokenised, with special tokens
    tokens: tuple[str, ...]  # one string per position
    token_ids: tuple[int, ...]
    context_only: int = Field(default=0, ge=0)  # first positions, without features and errors
    targets: tuple[Target, ...]  # in the order of the graph's logit and target nodes
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    checks: Checks = Checks()
    measured: tuple[Measured, ...] = ()
    report: Report | None = None  # of `headwater check`

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per check of the trace or in the model that does not hold."""
        return (*self.checks.failures, *(self.report.failures if self.report else ()))
