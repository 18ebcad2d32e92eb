"""Regimes: what is held at the values of the prompt while an intervention runs."""

from __future__ import annotations

from enum import StrEnum


class Regime(StrEnum):
    """In the order of how much is held."""

    FROZEN = "frozen"  # patterns, norms and MLP outputs: direct effects are left
    CONSTRAINED = "constrained"  # the same up to a block, above it patterns alone
    FREE = "free"  # nothing
