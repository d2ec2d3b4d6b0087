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
        "ultrasound_bmode": "ultrasound",
        "ultrasound_bmode_params": "ultrasound",
        "render_ultrasound_bmode": "ultrasound",
        "thorax_ct": "thorax",
        "thorax_ct_params": "thorax",
        "render_thorax_ct": "thorax",
        "organ_in_context": "abdomen",
        "organ_in_context_params": "abdomen",
        "render_organ_in_context": "abdomen",
        "scribble_robot": "annotators",
    },
)
