"""Reports: what is told of one graph, as plain data."""
