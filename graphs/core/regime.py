"""Regimes: what is frozen while an intervention runs."""

from __future__ import annotations

from enum import StrEnum


class Regime(StrEnum):
    """From the most to the least that is frozen."""

    FROZEN = "frozen"  # attention patterns, norm denominators, MLP outputs: direct effects only
    CONSTRAINED = "constrained"  # the same up to a block, attention patterns alone above it
    FREE = "free"  # nothing
