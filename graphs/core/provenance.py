"""Provenance: the JSON header of a graph file, with the graph's origin and checks.

Schema 2 (November 2026) adds digests of the vocabulary and of the contents of model and dictionary,
and with schema 3 (November 2026) files may have responses, a dictionary's fit and stability.  A
header of an older schema is read as one of the newest without these.
"""

from __future__ import annotations

from base64 import b64decode
from statistics import median
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from pydantic import BeforeValidator, Field, JsonValue, model_validator

from graphs.core.opening import DocumentOpening, Opening, mismatches
from graphs.core.records import Record
from graphs.core.regime import Regime
from graphs.core.report import Report
from graphs.core.stability import Stability

SCHEMA_VERSION = 3
NEURONS = "neurons"  # kind of dictionary: the model's own neurons
MOST_LAYERS = 10_000  # far more than any model has, and few enough to loop over
UNKNOWN = "unknown"  # names that a file of another program does not give


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
TokenId = Annotated[int, Field(ge=-1, lt=10**18)]


class ModelIdentity(Record):
    """The language model that was traced."""

    name: str  # the value of --model
    architecture: str  # transformers class
    revision: str | None = None  # commit of the repository or version of the package
    n_layers: int = Field(ge=1, le=MOST_LAYERS)
    vocabulary: str | None = None  # digest of all tokens and their ids; None: unknown
    fingerprint: str | None = None  # digest of config and weight files; None: unknown


class DictionaryIdentity(Record):
    """The dictionary that the features come from."""

    kind: str  # neurons, transcoder, cross-layer transcoder; imported: as the file has it
    name: str
    revision: str | None = None
    fingerprint: str | None = None  # digest of all files that are read; None: unknown
    documents: DocumentOpening | None = None  # how training documents begin; None: unknown
    l0: tuple[float, ...] | None = None  # active features per token and layer, as its files state


class DictionaryFit(Record):
    """How well the dictionary fits the model, on the prompt itself.

    One number per layer; None of layers that it leaves out.
    """

    # Share of the variance of what MLPs write; 0 where it does not vary.
    unexplained: tuple[float | None, ...]
    l0: tuple[float | None, ...]  # active features per token

    @property
    def overall(self) -> float:
        """Median over the layers of what is unexplained."""
        return _middle(self.unexplained)

    @property
    def typical_l0(self) -> float:
        """Median over the layers of active features per token."""
        return _middle(self.l0)

    @property
    def sentence(self) -> str:
        """Both in words."""
        return (
            f"the dictionary leaves {self.overall:.1%} of what the MLPs write unexplained here and "
            f"has {self.typical_l0:.3g} active features per token (medians over layers)"
        )


def _middle(by_layer: tuple[float | None, ...]) -> float:
    return median(one for one in by_layer if one is not None)


class Sink(Record):
    """An attention sink outside the prefix: a position with a far larger residual stream."""

    pos: int = Field(ge=0)
    layer: int = Field(ge=0)  # whose MLP input is the largest
    ratio: float = Field(ge=0.0)  # its norm over the median of all positions
    influence: float = Field(ge=0.0)  # share of all feature influence at this position


LEAST_SURPRISE = 1e-6  # weight of a token of a sequence that the model is sure of


class FinalReading(Record):
    """Of the normalised final residual, along a row of the unembedding less something."""

    pos: int = Field(ge=0)
    index: int = Field(ge=0)  # vocabulary entry
    norm: ClassVar[str] = "unembedding"
    before: ClassVar[str] = "unembedding"
    layer: ClassVar[None] = None


class TokenReading(FinalReading):
    """A token's logit, less the mean logit.

    Of a sequence, less the mean that the probabilities weigh: the gradient of its log-probability.
    """

    what: Literal["logit", "sequence"]

    @property
    def name(self) -> str:
        return f"{self.what}:{self.index}@{self.pos}"


class ContrastReading(FinalReading):
    """A token's logit, less another's."""

    what: Literal["contrast"] = "contrast"
    against: int = Field(ge=0)

    @property
    def name(self) -> str:
        return f"contrast:{self.index}-{self.against}@{self.pos}"


class LayerReading(Record):
    """Of a residual inside the model, by a numbered part of a layer that reads it."""

    pos: int = Field(ge=0)
    layer: int = Field(ge=0)
    index: int = Field(ge=0)

    @property
    def place(self) -> str:
        return f"{self.layer}/{self.index}@{self.pos}"


class FeatureReading(LayerReading):
    """The value of a feature, which is its pre-activation, or the activation of a neuron.

    Of a neuron, where features are others or as well: what it applies its activation function to.
    """

    what: Literal["feature", "neuron"]
    norm: ClassVar[str] = "mlp"
    before: ClassVar[str] = "mlp"

    @property
    def name(self) -> str:
        return f"{self.what}:{self.place}"


class HeadReading(LayerReading):
    """What an attention head reads at a position, along what it would write from there."""

    what: Literal["head"] = "head"
    norm: ClassVar[str] = "attention"
    before: ClassVar[str] = "attention"

    @property
    def name(self) -> str:
        return f"head:{self.place}"


class DirectionReading(Record):
    """The residual along any vector: in front of a layer's attention or MLP, as it is, or
    normalised behind the last layer."""

    what: Literal["direction"] = "direction"
    pos: int = Field(ge=0)
    layer: int | None = Field(default=None, ge=0)  # None: behind the last
    before: Literal["attention", "mlp", "unembedding"] = "unembedding"
    text: str  # what it stands for
    vector: str  # d_model numbers, float64, little-endian, in base64

    @model_validator(mode="after")
    def _fits(self) -> DirectionReading:
        if (self.layer is None) != (self.before == "unembedding"):
            raise ValueError(
                f"A direction before {self.before} cannot be read at layer {self.layer}."
            )
        if not np.all(np.isfinite(self.direction)):
            raise ValueError("A direction has numbers that are not finite.")
        return self

    @property
    def norm(self) -> str | None:
        return "unembedding" if self.layer is None else None

    @property
    def direction(self) -> Float[ndarray, " d_model"]:
        """The vector."""
        return np.frombuffer(b64decode(self.vector, validate=True), dtype="<f8")

    @property
    def name(self) -> str:
        return self.text


# What one target reads at one position, so that it can be read from the model again: `norm` is what
# the norm is in front of that it reads through, None if it reads the residual as it is; `layer`
# is None behind the last.
Reading = Annotated[
    TokenReading | ContrastReading | FeatureReading | HeadReading | DirectionReading,
    Field(discriminator="what"),
]


class Target(Record):
    """One traced output."""

    text: str  # the token, or a description of the direction
    token_id: TokenId | None = None  # vocabulary entry; None for contrasts and vectors
    probability: Probability | None  # model's own; 1 for contrasts and vectors; None: unknown
    reading: Reading | None = None  # None: as the settings say, in files before November 2026


class Measured(Record):
    """The predicted and the measured effect of an intervention on one target."""

    what: str = Field(min_length=1)  # description, as in "feature:12/345@7 to 0"
    regime: Regime
    target: str  # the logit or target node, as in graphs.core.nodes
    predicted: float | None  # change of the target's value by the graph's edges; None: unknown
    measured: float  # change in the model


class Checks(Record):
    """Numerical checks of a trace; None where one does not apply or was not measured."""

    conservation_max: float | None = None  # largest |sum of row - value| / sum of |row|
    conservation_median: float | None = None
    conservation_limit: float | None = None  # of these and replay; above it the check fails
    heads_max: float | None = None  # largest of what heads write, with the rest, in the same way
    edge_heads_max: float | None = None  # of an edge by its heads, over its row's absolute sum
    scores_max: float | None = None  # of a score by what is at the query or key, over their sizes
    replay_max_difference: float | None = None  # replayed minus recorded logits, relative
    recording_max_difference: float | None = None  # recorded minus model's own logits, relative
    recording_limit: float | None = None  # above it the check fails
    influence_resolved: float | None = None  # 1 - unresolved influence, as a share
    error_influence_share: float | None = None  # of the influence at inputs and errors
    active_features: int | None = None  # before selection
    expanded_features: int | None = None

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per failed check."""
        measured = (
            (
                self.conservation_max,
                self.conservation_limit,
                "Conservation fails: a row misses its target's own value by {:.1e} of its absolute "
                "sum, the limit is {:.0e}.",
            ),
            (
                self.heads_max,
                self.conservation_limit,
                "Heads fail: with the rest, what they write misses a value by {:.1e} of its row's "
                "absolute sum, the limit is {:.0e}.",
            ),
            (
                self.edge_heads_max,
                self.conservation_limit,
                "Heads of edges fail: their parts miss an edge by {:.1e} of its row's absolute "
                "sum, the limit is {:.0e}.",
            ),
            (
                self.scores_max,
                self.conservation_limit,
                "Scores fail: what is at a query or key misses an attention score by {:.1e} of its "
                "parts, the limit is {:.0e}.",
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
                "Recording fails: a logit of the recorded run differs from that of the model alone "
                "by {:.1e} of the largest, the limit is {:.0e}.",
            ),
        )
        return tuple(
            sentence.format(value, limit)
            for value, limit, sentence in measured
            if value is not None and limit is not None and value > limit
        )


def _upgraded(version: Any) -> Any:
    """An older schema as the current one: all its fields have kept their meaning."""
    return SCHEMA_VERSION if type(version) is int and 1 <= version < SCHEMA_VERSION else version


class Provenance(Record):
    """Header of a graph: model, dictionary, prompt, settings and checks."""

    schema_version: Annotated[Literal[3], BeforeValidator(_upgraded)] = SCHEMA_VERSION
    generator: str  # program and version
    model: ModelIdentity
    dictionary: DictionaryIdentity
    dtype: str
    precision: str | None = None  # of products in float32: ieee, 3xtf32, tf32; None: unknown
    prompt: str  # as it was tokenised, with special tokens
    tokens: tuple[str, ...]  # one string per position
    token_ids: tuple[TokenId, ...]  # -1: unknown
    n_prefix: int = Field(  # number of prefix positions, without features and errors
        default=0, ge=0, validation_alias="context_only", serialization_alias="context_only"
    )
    opening: Opening | None = None  # None: unknown
    fit: DictionaryFit | None = None  # None: not measured, as of neurons
    sinks: tuple[Sink, ...] | None = None  # attention sinks; None: not computed
    targets: tuple[Target, ...]  # in the order of the graph's logit and target nodes
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    checks: Checks = Checks()
    measured: tuple[Measured, ...] = ()
    report: Report | None = None  # of `headwater check`
    stability: Stability | None = None  # of `headwater stability`

    def without_stability(self) -> Provenance:
        """The header for files of other programs, in which stability has no place."""
        return self.model_copy(update={"stability": None})

    @property
    def mismatches(self) -> tuple[str, ...]:
        """One sentence per difference between the openings of prompt and training documents."""
        return mismatches(self.dictionary.documents, self.opening, self.n_prefix)

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per failed check, of the trace or of the report."""
        return (*self.checks.failures, *(self.report.failures if self.report else ()))
