"""The base of all errors that headwater raises on purpose."""

from __future__ import annotations


class HeadwaterError(ValueError):
    """Bad input or an impossible request.

    The message says what was expected, what came and what to do, as the command line prints it.
    """
