"""Names: a few words that tell a node or a group from its neighbours."""
