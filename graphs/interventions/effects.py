"""Effects: measured and predicted changes of one intervention."""

from __future__ import annotations

from dataclasses import dataclass

from graphs.core.regime import Regime


@dataclass(frozen=True)
class NodeEffect:
    """One target or feature; None where a value is unknown."""

    node: str
    text: str  # the target's token, or the feature's label
    value: float | None  # without the intervention
    measured: float | None  # change
    predicted: float | None  # change


@dataclass(frozen=True)
class TokenEffect:
    """One vocabulary entry as the next token."""

    token: int
    text: str
    before: float  # probability
    after: float  # probability
    logit: float  # change


@dataclass(frozen=True)
class Effects:
    """All effects of one intervention."""

    what: str  # description
    regime: Regime
    through: int  # last frozen block; -1: none
    targets: tuple[NodeEffect, ...]  # in the order of the graph
    tokens: tuple[TokenEffect, ...]  # most probable before or after
    features: tuple[NodeEffect, ...]  # those whose outputs changed most
