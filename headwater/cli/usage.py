"""Usage that cannot work, refused before any work starts."""

from __future__ import annotations

from graphs.errors import HeadwaterError


class UsageError(HeadwaterError):
    """Options that do not go together."""


def require_consistent(
    *, transcoders: str | None, features: str | None, targets: list[str], against: str | None
) -> None:
    """Raises UsageError for options that do not go together."""
    if transcoders is not None and features is not None:
        raise UsageError("--transcoders and --features exclude each other: give one of them.")
    if against is not None and not targets:
        raise UsageError("--against needs --target: say which token wins over it.")
