"""What a graph is: nodes, weights, provenance and annotations."""
