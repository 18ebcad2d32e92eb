"""Readings by name: `logit:7365@4`, `feature:12/345@7`, `neuron:12/345@7`, `head:5/3@4`.

What they read is in `graphs.core.provenance`.
"""

from __future__ import annotations

import re

from graphs.core.provenance import FeatureReading, HeadReading, Reading, TokenReading

_NAME = re.compile(r"(logit|feature|neuron|head):(?:(\d{1,18})/)?(\d{1,18})@(-?\d{1,18})")


def named_reading(name: str, length: int) -> Reading | None:
    """What a name stands for in a prompt of so many tokens; None for any other text.

    Positions below 0 count from the end.  Raises ValueError for a place that cannot be.

    >>> named_reading("feature:12/345@-1", 8).name
    'feature:12/345@7'
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    what, layer, index, pos = found.groups()
    if (layer is None) != (what == "logit"):
        raise ValueError(
            f"{name!r} is no target: expected logit:TOKEN@POS, feature:LAYER/INDEX@POS, "
            "neuron:LAYER/INDEX@POS or head:LAYER/HEAD@POS."
        )
    if not -length <= int(pos) < length:
        raise ValueError(
            f"There is no position {pos} for {name!r} in a prompt of {length} tokens: choose one "
            f"of 0 to {length - 1}, or count from the end with a negative number."
        )
    at, number = int(pos) % length, int(index)
    match what:
        case "logit":
            return TokenReading(what="logit", pos=at, index=number)
        case "head":
            return HeadReading(pos=at, layer=int(layer), index=number)
        case _:
            kind = "feature" if what == "feature" else "neuron"
            return FeatureReading(what=kind, pos=at, layer=int(layer), index=number)
