"""headwater: the command line and the local server, which combine circuits, graphs and viz."""

from graphs.errors import HeadwaterError

__all__ = ["HeadwaterError"]
