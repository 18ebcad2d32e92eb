"""What attention carries and why it looks there, as numbers beside a graph."""
