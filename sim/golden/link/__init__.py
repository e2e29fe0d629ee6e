"""Golden twins of the link's blocks."""
