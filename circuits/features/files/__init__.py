"""Published dictionaries: where their files are, and one file per family of formats."""
