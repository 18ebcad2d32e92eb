"""Settings of an audit, of a check and of an evaluation.  Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from circuits.attribution.trace_settings import TraceSettings
from graphs.analysis.prune import PruneSettings


@dataclass(frozen=True)
class AuditSettings:
    """How pairs are compared."""

    mediators: int = 20  # features of largest attribution, tested alone and together
    random_sets: int = 20
    seed: int = 0
    trace: TraceSettings = field(default_factory=TraceSettings)  # apart from its targets


@dataclass(frozen=True)
class CheckSettings:
    """Sizes of the tests."""

    features: int = 100  # the most influential features, ablated one by one
    strongest: int = 20  # features of largest total effect, ablated together
    random_sets: int = 20  # for each set of features that is tested
    random_orders: int = 5  # for the curve
    adversarial: int = 8  # features outside the circuit, ablated together to change most; 0: none
    candidates: int = 64  # for the first of them
    later_candidates: int = 8  # for each other
    permutations: int = 5  # of the graph's edges, for the null of predicted effects
    prune: PruneSettings = field(
        default_factory=PruneSettings
    )  # selects an unpruned graph's circuit
    seed: int = 0


class Ablated(StrEnum):
    """What vectors are set to where they are ablated."""

    ZERO = "zero"  # as sparse autoencoders are evaluated
    MEAN = "mean"  # over the tokens that count


@dataclass(frozen=True)
class EvaluationSettings:
    """On what a dictionary is evaluated."""

    layers: tuple[int, ...] = ()  # only these; none: all that it has
    window: int | None = None  # tokens; None: the model's context, or 1,024 if that is longer
    ablated: Ablated = Ablated.ZERO
