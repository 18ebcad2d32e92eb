"""Entry point of the `headwater` command."""

from __future__ import annotations

from headwater.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command that the arguments name."""
    app()
