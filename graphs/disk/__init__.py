"""Files: atomic writes, locks, and reads in bounded memory."""
