"""Losses that monai lacks; one idea per file."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
