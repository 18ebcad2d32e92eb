"""Edits: what an intervention changes, said in names of a graph's nodes.

    Set("feature:12/345@7", 0)         the activation is 0
    Scale("supernode:Texas", -1)       of each feature -1 times its own; errors can be scaled too
    Add("concept:Texas", 2.5)          2.5 more
    Swap("Texas", "California", other) the first off, the second as active as in another graph
    Push(4, 7, vector, 2.0)            2 · vector more in the residual stream behind block 4

Names are those of `graphs.select`; a feature at a position need not be active there.  A `+` behind
a name, or `onward` of a push, means that position and all later ones, new tokens too.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.graph import AttributionGraph
from graphs.errors import HeadwaterError


class EditError(HeadwaterError):
    """Edits that cannot be made; the text is one sentence that says what can."""


@dataclass(frozen=True)
class Set:
    """Features get this activation."""

    nodes: str
    value: float

    def __str__(self) -> str:
        return f"{self.nodes} to {self.value:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return 0.0, self.value


@dataclass(frozen=True)
class Scale:
    """Features and errors become this many times what they are."""

    nodes: str
    factor: float

    def __str__(self) -> str:
        return f"{self.nodes} × {self.factor:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return self.factor, 0.0


@dataclass(frozen=True)
class Add:
    """Features get so much more activation."""

    nodes: str
    amount: float

    def __str__(self) -> str:
        return f"{self.nodes} + {self.amount:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return 1.0, self.amount


@dataclass(frozen=True)
class Push:
    """amount · vector is added to the residual stream behind a block."""

    layer: int
    pos: int
    vector: Float[ndarray, " d_model"]
    amount: float = 1.0
    onward: bool = False

    def __str__(self) -> str:
        return f"residual:{self.layer}@{self.pos}{'+' * self.onward} + {self.amount:g} · vector"


@dataclass(frozen=True)
class Swap:
    """What one name selects is off; what the other selects in another graph is on as it is there.

    A bare name is a group, or else a concept.  Two concepts say where, and matching what: at every
    layer and position at which each is in its graph, this prompt's features become the other's.
    Positions are those that stand for each other in the two prompts.  With a `+` behind the one,
    what is changed at the last position is so at new tokens too.
    """

    one: str
    other: str
    graph: AttributionGraph  # in which the other is
    annotations: Annotations = NO_ANNOTATIONS  # of that graph

    def __str__(self) -> str:
        return f"{self.one} > {self.other}"


Edit = Set | Scale | Add | Push | Swap
