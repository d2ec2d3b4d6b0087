"""Ordered surfaces by an interior-point layer in a network."""
