"""Entry point of the `headwater` command."""

from __future__ import annotations

import headwater.cli.audit
import headwater.cli.check
import headwater.cli.compare
import headwater.cli.dictionaries  # commands register themselves when imported
import headwater.cli.graph_files
import headwater.cli.intervene
import headwater.cli.profile
import headwater.cli.reading
import headwater.cli.serve
import headwater.cli.trace
import headwater.cli.train
import headwater.cli.view  # noqa: F401  # commands register themselves when imported
from headwater.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command that the arguments name."""
    app()
