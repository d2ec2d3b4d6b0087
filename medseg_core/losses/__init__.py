"""Losses that monai lacks; one idea per file."""
