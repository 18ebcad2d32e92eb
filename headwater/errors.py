"""The base of all errors that are raised on purpose."""

from graphs.errors import HeadwaterError

__all__ = ["HeadwaterError"]
