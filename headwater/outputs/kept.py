"""Keeping what took minutes to find: where a file does not take it, it is printed all the same."""

from __future__ import annotations

from collections.abc import Callable

from graphs import GraphFileError


def why_not_kept(keep: Callable[[], object]) -> GraphFileError | None:
    """Keep something; the error to be raised once it is printed, if that cannot be."""
    try:
        keep()
    except GraphFileError as error:
        return GraphFileError(f"What was found is printed only, and not kept: {error}")
    return None
