"""Exact optimisation, torch in and out, no networks: one problem per file."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
