"""Seeds and probabilities of the targets of another program's graph.

predictions          seed and probability are the model's probability
custom directions    have a weight, any number; the seed is its size, since influence has no sign,
                     and the probability 1, as for headwater's own contrasts
unknown              if no target has a probability, or all have 0, which means "unknown" in these
                     files, all get the same seed: otherwise nothing would have influence
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_ROUNDING = 1e-6  # of float32 sums


class TargetSeeds(NamedTuple):
    """Seed and probability of each target, in the order given."""

    seeds: list[float]
    probabilities: list[float | None]  # None: unknown
    remarks: tuple[str, ...]  # sentences about assumptions that were made


def is_probability(number: float) -> bool:
    """Whether a number can be a probability, up to rounding.

    >>> is_probability(1.0000001), is_probability(1.7), is_probability(-0.5)
    (True, False, False)
    """
    return 0.0 <= number <= 1.0 + _ROUNDING


def target_seeds(numbers: Sequence[float | None], custom: Sequence[bool]) -> TargetSeeds:
    """Seeds and probabilities of targets; those that are `custom` are custom directions.

    A prediction's number outside [0, 1] is passed through: the header refuses it.
    Raises ValueError if the sum of the weights is infinite.

    >>> target_seeds([0.75, None, -2.0], [False, False, True]).seeds
    [0.75, 0.0, 2.0]
    >>> target_seeds([None, 0.0], [False, False])[:2]
    ([1.0, 1.0], [None, None])
    """
    if not any(numbers):
        remark = "No target has a probability or a weight: all get the same weight."
        probabilities = [1.0 if own else None for own in custom]
        return TargetSeeds([1.0] * len(custom), probabilities, (remark,) if custom else ())
    pairs = list(zip(numbers, custom, strict=True))
    seeds = [abs(number or 0.0) if own else _rounded(number or 0.0) for number, own in pairs]
    if math.isinf(sum(seeds)):
        raise ValueError("The weights of the targets are too large: their sum is infinite.")
    probabilities = [
        1.0 if own else None if number is None else _rounded(number) for number, own in pairs
    ]
    return TargetSeeds(seeds, probabilities, tuple(_remarks(pairs)))


def _rounded(number: float) -> float:
    return min(number, 1.0) if is_probability(number) else number


def _remarks(pairs: list[tuple[float | None, bool]]) -> Iterator[str]:
    unknown = sum(number is None for number, own in pairs if not own)
    if unknown:
        yield f"{unknown:,} of {len(pairs):,} targets have no probability and get weight 0."
    weights = [number or 0.0 for number, own in pairs if own]
    if not all(map(is_probability, weights)):
        yield "Targets have weights instead of probabilities: each counts by its own weight."
    below = sum(weight < 0 for weight in weights)
    if below:
        yield f"{below:,} of {len(pairs):,} weights are negative: their absolute values are used."
