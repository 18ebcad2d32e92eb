"""Where commands may write, so that no input and no file of another kind is lost."""
