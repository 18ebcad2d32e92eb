"""Training transcoders: a corpus, a model's activations on it, dictionaries of its MLPs."""
