"""`python -m circuits` is the `headwater` command."""

from circuits.cli.main import main

main()
