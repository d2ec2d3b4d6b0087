"""Embedded data: one imaging modality per file, built on `medseg_core.physics`."""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    {
        "cardiac_sax": "cardiac",
        "cardiac_sax_params": "cardiac",
        "render_cardiac_sax": "cardiac",
        "oct_bscan": "oct",
        "oct_bscan_params": "oct",
        "render_oct_bscan": "oct",
        "ivus_polar": "ivus",
        "ivus_polar_params": "ivus",
        "render_ivus_polar": "ivus",
    },
)
