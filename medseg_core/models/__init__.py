"""Networks, one family per file; every one returns logits."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
