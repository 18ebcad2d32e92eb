"""Checks of options that depend on each other, made before any work starts."""

from __future__ import annotations

from graphs.errors import HeadwaterError


class UsageError(HeadwaterError):
    """Options that contradict each other."""


def require_consistent(
    *, transcoders: str | None, features: str | None, targets: list[str], against: str | None
) -> None:
    """Raises UsageError for options that contradict each other."""
    if transcoders is not None and features is not None:
        raise UsageError("--transcoders and --features exclude each other: give one of them.")
    if against is not None and not targets:
        raise UsageError("--against needs --target: give the token to explain.")
