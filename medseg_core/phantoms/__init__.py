"""Embedded data: one imaging modality per file or folder, built on `medseg_core.physics`.

Generators are taken from here: `from medseg_core.phantoms import cardiac_sax`.
"""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "abdomen.organ_in_context": [
            "organ_in_context", "organ_in_context_params", "render_organ_in_context",
        ],
        "annotators": ["scribble_robot"],
        "cardiac": ["cardiac_sax", "cardiac_sax_params", "render_cardiac_sax"],
        "ivus": ["ivus_polar", "ivus_polar_params", "render_ivus_polar"],
        "oct.bscan": ["oct_bscan", "oct_bscan_params", "render_oct_bscan"],
        "thorax.axial": ["render_thorax_ct", "thorax_ct", "thorax_ct_params"],
        "ultrasound.bmode": [
            "render_ultrasound_bmode", "ultrasound_bmode", "ultrasound_bmode_params",
        ],
    },
)  # fmt: skip
