"""Exact optimisation, torch in and out, no networks: one problem per file."""
