"""The base of all errors that are raised on purpose, and one of two folders."""

from graphs.errors import HeadwaterError

__all__ = ["HeadwaterError", "TrainingError"]


class TrainingError(HeadwaterError):
    """A training run cannot work as requested."""
