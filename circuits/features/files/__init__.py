"""Published dictionaries: where their files are, and one reader per family of formats."""
