"""Graph files of others that only torch can read."""
