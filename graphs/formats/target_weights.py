"""How much each target of another program's graph counts: its seed, and its probability if any.

predictions   the model's probability is both
directions    that somebody made have a weight, any number, whose size is the seed: influence
              knows no sign; their probability is 1, as that of our own contrasts
unknown       if no target has a probability, or all have 0, which stands for "not known" in
              these files, all have the same seed, or nothing would have any influence
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_ROUNDING = 1e-6  # of float32 sums


class Weighed(NamedTuple):
    """Of each target, in the order in which they were given."""

    seeds: list[float]
    probabilities: list[float | None]  # None: not known
    remarks: tuple[str, ...]  # sentences on what had to be decided


def is_probability(number: float) -> bool:
    """Whether a number can be a probability, up to rounding.

    >>> is_probability(1.0000001), is_probability(1.7), is_probability(-0.5)
    (True, False, False)
    """
    return 0.0 <= number <= 1.0 + _ROUNDING


def weighed(numbers: Sequence[float | None], made: Sequence[bool]) -> Weighed:
    """Seeds and probabilities of targets, of which those that are `made` are directions.

    A number that can be no probability of a prediction is left as it is: headers refuse it.
    Raises ValueError if weights cannot be added.

    >>> weighed([0.75, None, -2.0], [False, False, True]).seeds
    [0.75, 0.0, 2.0]
    >>> weighed([None, 0.0], [False, False])[:2]
    ([1.0, 1.0], [None, None])
    """
    if not any(numbers):
        remark = "No target has a probability or a weight: all count the same."
        known = [1.0 if own else None for own in made]
        return Weighed([1.0] * len(known), known, (remark,) if known else ())
    pairs = list(zip(numbers, made, strict=True))
    seeds = [abs(number or 0.0) if own else _rounded(number or 0.0) for number, own in pairs]
    if math.isinf(sum(seeds)):
        raise ValueError("The weights of its targets are too large to be added.")
    probabilities = [
        1.0 if own else None if number is None else _rounded(number) for number, own in pairs
    ]
    return Weighed(seeds, probabilities, tuple(_remarks(pairs)))


def _rounded(number: float) -> float:
    return min(number, 1.0) if is_probability(number) else number


def _remarks(pairs: list[tuple[float | None, bool]]) -> Iterator[str]:
    open_ = sum(number is None for number, own in pairs if not own)
    if open_:
        yield f"{open_:,} of {len(pairs):,} targets have no probability and count nothing."
    weights = [number or 0.0 for number, own in pairs if own]
    if not all(map(is_probability, weights)):
        yield "Targets have weights in the place of probabilities: each counts as much as its own."
    below = sum(weight < 0 for weight in weights)
    if below:
        yield f"Of weights below 0 ({below:,} of {len(pairs):,}) the size counts."
