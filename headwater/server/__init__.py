"""`headwater serve`: the local server, for the user of this machine alone."""
