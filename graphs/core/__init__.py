"""What a graph is: nodes, weights, where it came from, and what people say about it."""
