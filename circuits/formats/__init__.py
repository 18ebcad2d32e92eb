"""Published dictionary formats, one file per family; `circuits.weights` chooses among them."""
