"""Settings of a trace: what to explain, how far to expand, and how.

Nothing here needs torch, so that commands know their options without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float

from circuits.recording.precision import Precision
from graphs.core.brief import Brief
from graphs.core.provenance import Reading


@dataclass(frozen=True, repr=False)
class Direction(Brief):
    """Any vector as a target."""

    text: str  # what it stands for
    vector: Float[Any, " d_model"]
    layer: int | None = (
        None  # block of which it reads an input; None: the normalised final residual
    )
    before: Literal["attention", "mlp"] = "mlp"  # whose input, before any norm
    pos: int | None = None  # None: the position that is explained


@dataclass(frozen=True)
class TargetSettings:
    """What to explain, all of it at once, each with weight 1 but tokens of a sequence.

    These weigh what they lack to probability 1.  Without any of the first four, the most probable
    next tokens are explained, which weigh their probabilities.
    """

    tokens: tuple[int, ...] = ()  # vocabulary ids
    sequence: tuple[int, ...] = ()  # tokens that end behind the position, all but the last in front
    directions: tuple[Direction, ...] = ()
    readings: tuple[Reading, ...] = ()  # anything else, each at its own position
    against: int | None = None  # explain logit(token) - logit(against) instead, per token
    seeds: tuple[float, ...] = ()  # weights of the readings, if they are not 1
    position: int = -1  # token position whose output is explained
    probability_mass: float = 0.95  # of the next tokens that are explained
    max_logits: int = 10


@dataclass(frozen=True)
class Expansion:
    """How far to expand."""

    max_features: int = 4096  # largest number of features to expand
    tolerance: float = 0.0  # stop when at most this share of influence is unresolved
    kept_share: float = 0.999  # of each row's absolute sum, kept as edges
    everything: bool = False  # expand every active feature, regardless of the limits above


@dataclass(frozen=True)
class TraceSettings:
    """One trace: what to explain, how far to expand, how many features to label."""

    targets: TargetSettings = field(default_factory=TargetSettings)
    expansion: Expansion = field(default_factory=Expansion)
    labels: int = 256  # most influential features to label; some of each layer always are
    # Rows of norms and gates inside the model, at most, for predictions where these run.
    inner_rows: int = 0
    heads: bool = True  # what attention heads write into nodes with rows: 4 bytes each
    precision: Precision = Precision.IEEE  # of the sweep's products in float32
    memory: int | None = None  # bytes to hold at most where the model is; None: what is free
