"""headwater: the command line and the local server, which alone see circuits, graphs and viz."""

from graphs.errors import HeadwaterError

__all__ = ["HeadwaterError"]
