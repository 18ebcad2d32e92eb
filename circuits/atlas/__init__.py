"""Atlas: a world of known facts, and two small models that learned it."""
