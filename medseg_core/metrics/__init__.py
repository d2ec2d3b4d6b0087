"""Metrics that monai lacks or leaves open: one number per sample and class, no averaging inside."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
