"""Readers of real, public data sets, each in its own published layout; one data set per file.

Every reader works alike: `Reader(root, **options)` takes the folder that the user downloaded,
`.check()` reports what is there and what is not, `len(reader)` and `reader[i]` give single samples
with the phantoms' keys, and `.load(indices, size=, spacing=)` stacks samples like a phantom.
Readers are taken from here: `from medseg_core.datasets import ACDC`.
"""

import lazy_loader

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acdc": ["ACDC"],
        "camus": ["CAMUS"],
        "duke_amd": ["DukeAMD"],
        "ivus2011": ["IVUS2011"],
        "msd": ["MSD"],
        "oct_jhu": ["JHUOCT"],
        "oct_spectralis": ["SpectralisExport"],
        "sunnybrook_png": ["SunnybrookPNG"],
    },
)
