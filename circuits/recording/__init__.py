"""One forward pass of a model on a prompt, and its attention held as it was there."""
