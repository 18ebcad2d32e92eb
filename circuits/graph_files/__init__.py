"""Graph files of every format, recognised by content, including those that need torch."""
