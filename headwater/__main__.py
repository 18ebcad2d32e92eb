"""The `headwater` command, and `python -m headwater`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name.

    Ctrl-C while its modules are imported, which takes a moment, ends it as it ends a command.
    """
    try:
        from headwater.cli.app import app
    except KeyboardInterrupt:
        sys.stderr.write("headwater: Interrupted.\n")
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
