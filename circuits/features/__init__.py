"""What stands in for the MLPs: dictionaries and neurons, and which of their features fire."""
