"""`headwater serve`: pages and answers for the person at this machine alone."""
