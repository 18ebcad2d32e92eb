"""The command line: one file per group of commands, which alone sees circuits, graphs and viz."""
