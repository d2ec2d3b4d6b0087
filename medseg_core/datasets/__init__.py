"""Readers of real, public data sets, each in its own published layout; one data set per file.

Every reader works alike: `Reader(root, **options)` takes the folder that the user downloaded,
`.check()` reports what is there and what is not, `len(reader)` and `reader[i]` give single samples
with the phantoms' keys, and `.load(indices, size=, spacing=)` stacks samples like a phantom.
"""

from medseg_core._lazy import attach

__getattr__, __dir__ = attach(
    __name__,
    {
        "ACDC": "acdc",
        "CAMUS": "camus",
        "DukeAMD": "duke_amd",
        "IVUS2011": "ivus2011",
        "JHUOCT": "oct_jhu",
        "MSD": "msd",
        "SpectralisExport": "oct_spectralis",
        "SunnybrookPNG": "sunnybrook_png",
    },
)
