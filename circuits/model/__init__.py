"""A model as linear maps, where it comes from, and texts as its tokens."""
