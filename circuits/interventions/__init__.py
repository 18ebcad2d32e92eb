"""Back to the model: features changed in it, and what that does beside what a graph predicts."""
