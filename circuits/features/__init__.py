"""Replacements of MLPs: dictionaries and neurons, and their active features."""
