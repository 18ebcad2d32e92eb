"""Storing results that took minutes: if that fails, they are printed before the error is."""

from __future__ import annotations

from collections.abc import Callable

from graphs import GraphFileError


def storing_error(store: Callable[[], object]) -> GraphFileError | None:
    """Store a result; returns the error, if any, to raise after the result is printed."""
    try:
        store()
    except GraphFileError as error:
        return GraphFileError(f"The result is printed but not stored: {error}")
    return None
