"""This machine: its memory, its cores, its elementary functions."""
