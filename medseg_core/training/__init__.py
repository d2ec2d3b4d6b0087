"""What training loops share: device, budgeted fit, samplers, arms, patches, synthetic gradients."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
