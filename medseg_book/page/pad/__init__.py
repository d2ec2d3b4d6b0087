"""Drawing scribbles in a live notebook."""
