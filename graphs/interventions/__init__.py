"""What is changed in a model, said in a graph's nodes, and what the graph predicts of it."""
