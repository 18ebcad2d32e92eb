"""Features of one role as groups, and graphs of groups."""
