"""Graph files of every kind, told by their content, also those that only torch can read."""
