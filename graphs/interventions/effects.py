"""Effects: measured and predicted changes of one intervention."""

from __future__ import annotations

from dataclasses import dataclass

from graphs.core.brief import Brief
from graphs.core.regime import Regime

SHOWN = 10  # tokens and features by default


@dataclass(frozen=True)
class NodeEffect:
    """One target or feature; None where a value is unknown."""

    node: str
    text: str  # the target's token, or the feature's label
    value: float | None  # without the intervention
    measured: float | None  # change
    predicted: float | None  # change
    held: bool = False  # whether the intervention sets its activation, whatever its value is


@dataclass(frozen=True)
class EditedNode:
    """One feature, error, head or entry of a pattern that an intervention sets."""

    node: str
    text: str  # its label, or tokens
    before: float  # activation, 0 if it is not active on the prompt; of errors and heads 1
    after: float | None  # of errors and heads a factor; None: as on another prompt


@dataclass(frozen=True)
class TokenEffect:
    """One vocabulary entry as the next token."""

    token: int
    text: str
    before: float  # probability
    after: float  # probability
    logit: float  # change


@dataclass(frozen=True)
class KeyEffect:
    """What a query gives one key."""

    key: int  # position
    text: str  # its token
    before: float  # attention
    after: float
    measured: float  # change of the attention's logarithm
    predicted: float  # the same to first order


@dataclass(frozen=True, repr=False)
class PatternEffect(Brief):
    """What a head attends to from one query, by key."""

    layer: int
    head: int
    query: int  # position
    text: str  # its token
    keys: tuple[KeyEffect, ...]  # those that it can attend to


@dataclass(frozen=True, repr=False)
class Effects(Brief):
    """All effects of one intervention."""

    what: str  # description
    regime: Regime
    through: int  # last frozen block; -1: none
    targets: tuple[NodeEffect, ...]  # in the order of the graph
    tokens: tuple[TokenEffect, ...]  # most probable before or after
    features: tuple[NodeEffect, ...]  # those whose outputs changed most
    edited: tuple[EditedNode, ...] = ()
    steered: int = 0  # vectors that were added to the residual stream
    predicted_with: str = ""  # what predictions let run, and what they hold
    only: str = ""  # what alone of which heads reacts; empty: everything does
    patterns: tuple[PatternEffect, ...] = ()  # those that were asked for

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is set to what it is."""
        return not self.steered and all(one.before == one.after for one in self.edited)
