"""Errors of the front door; all that is raised on purpose is a HeadwaterError."""

from graphs.errors import HeadwaterError

__all__ = ["ArgumentError", "HeadwaterError"]


class ArgumentError(HeadwaterError):
    """An argument that cannot be used, alone or beside another."""
