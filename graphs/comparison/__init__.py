"""Several graphs side by side: which positions and nodes stand for each other, and the rest."""
