"""Organs in the context of their neighbours, as small volumes."""
