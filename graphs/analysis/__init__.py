"""Analysis of one graph: influence, pruning, scores, paths."""
