"""Graph files: headwater's own format and those of other programs."""
