"""MedSeg Book's package: solvers, models, losses, phantoms and readers that the chapters stand on.

Sub-modules are imported on first use, so that `import medseg_core` loads neither torch nor monai.
"""

from medseg_core._lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__ = attach(__name__)
