"""One graph read: influence, pruning, scores, paths."""
