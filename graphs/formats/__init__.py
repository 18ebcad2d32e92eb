"""Files of graphs: ours, and those of other programs."""
