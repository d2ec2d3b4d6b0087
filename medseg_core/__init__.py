"""The science of MedSeg Book: solvers, models, losses, metrics, physics, phantoms and readers.

Sub-packages are imported on first use, so that `import medseg_core` loads neither torch nor monai.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules=[
        "checks", "datasets", "losses", "metrics", "models", "papers", "phantoms", "physics", "rng",
        "solvers", "stacking", "training",
    ],
)  # fmt: skip
