"""Edits: the changes of an intervention, by names of a graph's nodes.

    SetTo("feature:12/345@7", 0)         set the activation to 0
    Scale("supernode:Texas", -1)       multiply activations by -1; errors can be scaled too
    Add("concept:Texas", 2.5)          add 2.5 to activations
    Swap("Texas", "California", other) ablate the first, set the second as in another graph
    Steer(4, 7, vector, 2.0)           add 2 · vector to the residual stream behind block 4
    Scale("head:4.5@8<4", 0)           cut an entry of an attention pattern
    Swap("head:4.5", "head:4.5", other)  let a head write what it writes on the other prompt

Names are those of `graphs.select`, and of heads (`graphs.interventions.heads`); a feature at a
position need not be active there.  A `+` after a name, or `onward` of Steer, means that position
and all later ones, including new tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from numpy import ndarray

from graphs.core.annotations import NO_ANNOTATIONS, Annotations
from graphs.core.brief import Brief
from graphs.core.graph import AttributionGraph
from graphs.errors import HeadwaterError


class EditError(HeadwaterError):
    """Edits that cannot be made; the message is one sentence that says what can."""


@dataclass(frozen=True)
class SetTo:
    """Set features to an activation."""

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
    """Multiply features, errors, outputs of heads or entries of their patterns by a factor."""

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
    """Add an amount to the activation of features."""

    nodes: str
    amount: float

    def __str__(self) -> str:
        return f"{self.nodes} + {self.amount:g}"

    @property
    def rule(self) -> tuple[float, float]:
        """Factor and offset."""
        return 1.0, self.amount


@dataclass(frozen=True, repr=False)
class Steer(Brief):
    """Add amount · vector to the residual stream behind a block."""

    layer: int
    pos: int
    vector: Float[ndarray, " d_model"]
    amount: float = 1.0
    onward: bool = False

    def __str__(self) -> str:
        return f"residual:{self.layer}@{self.pos}{'+' * self.onward} + {self.amount:g} · vector"


@dataclass(frozen=True, repr=False)
class Swap(Brief):
    """Ablate what `one` selects, and set what `other` selects to its activations in another graph.

    A bare name is a group, or else a concept.  Two concepts only say where: at every layer and
    aligned position at which both occur, all features take their activations from the other graph.
    With a `+` after `one`, changes at the last position also apply to new tokens.  A head, named
    twice, writes what it writes at the aligned positions of the other prompt.
    """

    one: str
    other: str
    graph: AttributionGraph  # in which `other` is selected
    annotations: Annotations = NO_ANNOTATIONS  # of that graph

    def __str__(self) -> str:
        return f"{self.one} > {self.other}"


Edit = SetTo | Scale | Add | Steer | Swap
