"""Entry point of the `headwater` command."""

from __future__ import annotations

import circuits.cli.audit
import circuits.cli.check
import circuits.cli.compare
import circuits.cli.dictionaries  # commands register themselves when imported
import circuits.cli.files
import circuits.cli.intervene
import circuits.cli.profile
import circuits.cli.reading
import circuits.cli.serve
import circuits.cli.trace
import circuits.cli.train
import circuits.cli.view  # noqa: F401  # commands register themselves when imported
from circuits.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command that the arguments name."""
    app()
