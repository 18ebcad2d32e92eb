"""What headwater raises on purpose: bad input, or what cannot be done, in one sentence."""

from __future__ import annotations


class HeadwaterError(ValueError):
    """Its text says what was expected, what came and what to do, as the command line prints it."""
