"""Files: written whole or not at all, locked while they change, read in bounded memory."""
