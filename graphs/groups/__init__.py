"""Groups of features that play one role, and graphs of groups."""
