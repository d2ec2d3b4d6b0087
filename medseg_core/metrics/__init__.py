"""Metrics that monai lacks or leaves open: one number per sample and class, no averaging inside."""
