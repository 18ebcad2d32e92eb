"""Rows of the graph: from targets down to sources, best first, at a cost that is known before."""
