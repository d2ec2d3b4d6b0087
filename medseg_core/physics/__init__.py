"""How images come to be: noise laws, deformation, shapes. Pure functions, explicit generators."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(__name__)
