"""Carriers: features that carry the difference between two prompts.

    share = (value with the feature as in the other prompt - value) / (other's value - value)

A feature that fires otherwise in two prompts may still be of no matter, so each is tested: in the
model that runs freely it takes the activation that it has in the other prompt, alone, in either
prompt.  1 says that it moves the answer all the way, 0 that it does nothing, less than 0 that it
works against the difference.  Features before and behind each other carry the same, so shares need
not sum to 1.  What a difference is of: the value of one target, the same in both prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pydantic import Field

from graphs.core.records import Record
from graphs.core.report import SetReport
from graphs.interventions.pairs import PromptPair

LEAST_DIFFERENCE = 0.1  # logits; of less there are no shares


class Answer(Record):
    """What a model says to one prompt."""

    text: str  # most probable next token
    token_id: int | None = None  # its vocabulary entry; None in files of before
    probability: float = Field(ge=0.0, le=1.0)
    value: float  # of the target that is explained in both prompts


class Carrier(Record):
    """One feature; of each pair of numbers the first is the first prompt's."""

    layer: int
    index: int
    positions: tuple[int | None, int | None]  # None: none there stands for the other's
    tokens: tuple[str, str]  # of the prompts, at these positions
    says: str  # its label or the tokens that it raises; may be empty
    activations: tuple[float, float]
    influence: tuple[float, float]  # shares of all that reaches the target
    moved: tuple[float | None, float | None]  # share of the difference; None: cannot be changed

    @property
    def feature(self) -> str:
        """Its name in the dictionary."""
        return f"{self.layer}/{self.index}"

    @property
    def share(self) -> float | None:
        """Of the difference, over both prompts; None where it is unknown."""
        known = [one for one in self.moved if one is not None]
        return sum(known) / len(known) if known else None


class Audited(Record):
    """A pair of prompts in a model."""

    pair: PromptPair
    target: str  # whose value is compared
    answers: tuple[Answer, Answer]
    in_common: float = Field(ge=0.0, le=1.0)  # of the influence at features (`graphs.compare`)
    carriers: tuple[Carrier, ...]  # the largest share first
    together: SetReport | None  # all of them at once; None where there is no difference
    failures: tuple[str, ...] = ()  # checks of either graph that do not hold
    remarks: tuple[str, ...] = ()  # on which token a text of the pair was taken for

    @property
    def difference(self) -> float:
        """Of the target's value."""
        return self.answers[1].value - self.answers[0].value

    @property
    def says_otherwise(self) -> bool:
        """Whether the most probable token is another."""
        one, other = self.answers
        if one.token_id is not None and other.token_id is not None:
            return one.token_id != other.token_id
        return one.text != other.text


@dataclass(frozen=True)
class Recurring:
    """A feature over all pairs that it is a carrier of, all its positions together."""

    feature: str  # LAYER/INDEX
    says: str
    pairs: int
    moved: float  # mean size of what it moves the target's value by, in logits
    share: float  # of the differences of these pairs, the larger the more they count
    same_way: float  # share of these pairs in which it has the sign of `share`
    largest: str  # the pair of which it moves most


def recurring(audited: Iterable[Audited]) -> list[Recurring]:
    """Features by how much they move in all pairs, most first."""
    shares: dict[str, dict[str, float]] = {}
    says: dict[str, str] = {}
    differences: dict[str, float] = {}
    for one in audited:
        differences[one.pair.called] = abs(one.difference)
        for carrier in one.carriers:
            if carrier.share is not None:
                of = shares.setdefault(carrier.feature, {})
                of[one.pair.called] = of.get(one.pair.called, 0.0) + carrier.share
                says[carrier.feature] = says.get(carrier.feature) or carrier.says
    found = [
        _recurring(feature, says[feature], of, [differences[name] for name in of])
        for feature, of in shares.items()
    ]
    return sorted(found, key=lambda one: (-one.moved * one.pairs, one.feature))


def _recurring(
    feature: str, says: str, shares: dict[str, float], differences: list[float]
) -> Recurring:
    values, weights = np.array(list(shares.values())), np.array(differences)
    moved = np.abs(values * weights)
    share = float(values @ weights / weights.sum())
    return Recurring(
        feature=feature,
        says=says,
        pairs=len(values),
        moved=float(moved.mean()),
        share=share,
        same_way=float(np.count_nonzero(values * share > 0)) / len(values),
        largest=list(shares)[int(moved.argmax())],
    )


@dataclass(frozen=True)
class Kind:
    """All pairs that differ in one kind of thing."""

    kind: str
    pairs: int
    otherwise: int  # of them, whose most probable token differs
    difference: float  # mean size of the target's difference
    together: float | None  # mean share that the carriers of a pair carry together
    by_chance: float | None  # the same of random features


def by_kind(audited: Sequence[Audited]) -> list[Kind]:
    """What the pairs of each kind show, kinds in alphabetical order."""

    def kind(one: Audited) -> str:
        return one.pair.kind

    ordered = sorted(audited, key=kind)
    return [_kind(name, list(some)) for name, some in groupby(ordered, kind)]


def _kind(name: str, some: list[Audited]) -> Kind:
    known = [one.together for one in some if one.together is not None]
    return Kind(
        kind=name,
        pairs=len(some),
        otherwise=sum(one.says_otherwise for one in some),
        difference=sum(abs(one.difference) for one in some) / len(some),
        together=sum(one.share for one in known) / len(known) if known else None,
        by_chance=sum(one.random_mean for one in known) / len(known) if known else None,
    )
