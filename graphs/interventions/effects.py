"""Effects: what one intervention did in the model, beside what the graph says of it."""

from __future__ import annotations

from dataclasses import dataclass

from graphs.core.regime import Regime


@dataclass(frozen=True)
class NodeEffect:
    """One target or feature; None where the graph or the model does not say."""

    node: str
    text: str  # the target's token, or what the feature says
    value: float | None  # on the prompt itself
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
    """One intervention."""

    what: str  # in words
    regime: Regime
    through: int  # last block that was held; -1: none
    targets: tuple[NodeEffect, ...]  # in the order of the graph
    tokens: tuple[TokenEffect, ...]  # most probable before or after
    features: tuple[NodeEffect, ...]  # those that changed most of what they pass on
