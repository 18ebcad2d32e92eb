"""Where commands may write: never over an input or a file of another kind."""
