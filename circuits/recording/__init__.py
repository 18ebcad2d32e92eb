"""One forward pass of a model on a prompt, and its frozen attention."""
