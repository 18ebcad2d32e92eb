"""`python -m circuits` is the `headwater` command."""

from circuits.cli import main

main()
