"""Printing to a terminal, exit codes and error messages."""
