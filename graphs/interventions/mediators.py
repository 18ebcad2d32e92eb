"""Mediators: features that mediate the difference between two prompts.

    share = (value with the feature as in the other prompt - value) / (other's value - value)

A feature whose activation differs between two prompts need not matter, so each is tested: in the
freely running model it alone is given its activation from the other prompt, in either prompt.  1
means that it accounts for the whole difference, 0 that it has no effect, less than 0 that it works
against the difference.  Features that are upstream and downstream of each other mediate the same
part, so shares need not sum to 1.  The difference is that of the value of one target, the same in
both prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from pydantic import Field

from graphs.core.records import Record, as_json
from graphs.core.report import SetReport
from graphs.interventions.pairs import PromptPair

LEAST_DIFFERENCE = 0.1  # logits; for smaller differences no shares are computed


class Answer(Record):
    """The model's answer to one prompt."""

    text: str  # most probable next token
    token_id: int | None = None  # its vocabulary id; None in older files
    probability: float = Field(ge=0.0, le=1.0)
    value: float  # of the target that both prompts have in common


class Mediator(Record):
    """One feature; of each pair of values the first is of the first prompt."""

    layer: int
    index: int
    positions: tuple[int | None, int | None]  # None: no position is aligned with the other
    tokens: tuple[str, str]  # of the prompts, at these positions
    label: str = Field(  # by `graphs.naming`; may be empty
        validation_alias="says", serialization_alias="says"
    )
    activations: tuple[float, float]
    influence: tuple[float, float]  # share of all influence on the target
    moved: tuple[float | None, float | None]  # shares of the difference; None: cannot be tested

    @property
    def feature(self) -> str:
        """Its name in the dictionary."""
        return f"{self.layer}/{self.index}"

    @property
    def share(self) -> float | None:
        """Mean share of the difference over both prompts; None if unknown."""
        known = [one for one in self.moved if one is not None]
        return sum(known) / len(known) if known else None


class Audited(Record):
    """A pair of prompts, audited in a model."""

    pair: PromptPair
    target: str  # whose value is compared
    answers: tuple[Answer, Answer]
    in_common: float = Field(ge=0.0, le=1.0)  # overlap of feature influence (`graphs.compare`)
    mediators: tuple[Mediator, ...] = Field(  # the largest share first
        validation_alias="carriers", serialization_alias="carriers"
    )
    together: SetReport | None  # all mediators at once; None if there is no difference
    failures: tuple[str, ...] = ()  # failed checks of either graph
    remarks: tuple[str, ...] = ()  # which token was taken for a text of the pair

    @property
    def difference(self) -> float:
        """Second less first value of the target."""
        return self.answers[1].value - self.answers[0].value

    @property
    def answers_differ(self) -> bool:
        """Whether the most probable next tokens differ."""
        one, other = self.answers
        if one.token_id is not None and other.token_id is not None:
            return one.token_id != other.token_id
        return one.text != other.text


@dataclass(frozen=True)
class Recurring:
    """A feature over all pairs that it mediates, all its positions together."""

    feature: str  # LAYER/INDEX
    label: str
    pairs: int
    moved: float  # mean absolute change of the target's value, in logits
    share: float  # of the difference, a mean over these pairs weighted by difference
    same_sign: float  # share of these pairs in which it has the sign of `share`
    largest: str  # the pair in which it moves the target most

    def as_json(self) -> dict[str, object]:
        """The same as JSON-ready data."""
        return as_json(self, {"label": "says", "same_sign": "same_way"})


def recurring(audited: Iterable[Audited]) -> list[Recurring]:
    """Mediators over all pairs, by the total change of targets, largest first."""
    shares: dict[str, dict[str, float]] = {}
    labels: dict[str, str] = {}
    differences: dict[str, float] = {}
    for one in audited:
        differences[one.pair.identifier] = abs(one.difference)
        for mediator in one.mediators:
            if mediator.share is not None:
                by_pair = shares.setdefault(mediator.feature, {})
                name = one.pair.identifier
                by_pair[name] = by_pair.get(name, 0.0) + mediator.share
                labels[mediator.feature] = labels.get(mediator.feature) or mediator.label
    found = [
        _recurring(feature, labels[feature], by_pair, [differences[name] for name in by_pair])
        for feature, by_pair in shares.items()
    ]
    return sorted(found, key=lambda one: (-one.moved * one.pairs, one.feature))


def _recurring(
    feature: str, label: str, shares: dict[str, float], differences: list[float]
) -> Recurring:
    values, weights = np.array(list(shares.values())), np.array(differences)
    moved = np.abs(values * weights)
    share = float(values @ weights / weights.sum())
    return Recurring(
        feature=feature,
        label=label,
        pairs=len(values),
        moved=float(moved.mean()),
        share=share,
        same_sign=float(np.count_nonzero(values * share > 0)) / len(values),
        largest=list(shares)[int(moved.argmax())],
    )


@dataclass(frozen=True)
class Kind:
    """All pairs that differ in one kind of thing, such as a name."""

    kind: str
    pairs: int
    answers_differ: int  # number of pairs whose most probable next tokens differ
    difference: float  # mean absolute difference of the target's value
    together: float | None  # mean share that all mediators of a pair account for together
    null: float | None  # the same for random features

    def as_json(self) -> dict[str, object]:
        """The same as JSON-ready data."""
        return as_json(self, {"answers_differ": "otherwise", "null": "by_chance"})


def by_kind(audited: Sequence[Audited]) -> list[Kind]:
    """Means over the pairs of each kind, kinds in alphabetical order."""

    def kind(one: Audited) -> str:
        return one.pair.kind

    ordered = sorted(audited, key=kind)
    return [_kind(name, list(some)) for name, some in groupby(ordered, kind)]


def _kind(name: str, some: list[Audited]) -> Kind:
    known = [one.together for one in some if one.together is not None]
    return Kind(
        kind=name,
        pairs=len(some),
        answers_differ=sum(one.answers_differ for one in some),
        difference=sum(abs(one.difference) for one in some) / len(some),
        together=sum(one.share for one in known) / len(known) if known else None,
        null=sum(one.random_mean for one in known) / len(known) if known else None,
    )
